"""The files of an nnU-Net are read back as the model that they were written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hsf_finetune as hf
from hsf_finetune.config.settings import NetworkSettings, NnUNetSettings
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.sources.read_source import read_source
from tests.export.models import OF_NNUNET, SMALL, random_model
from tests.networks.small_settings import SETTINGS

RESULTS = "Dataset999_made/nnUNetTrainer__nnUNetPlans__3d_fullres"
FITTING = [s for s in SETTINGS if isinstance(s, NnUNetSettings) and s.orientation == "RAS"]


@pytest.mark.parametrize("settings", [OF_NNUNET, *FITTING], ids=lambda s: s.architecture)
def test_our_own_reader_gives_the_model_back(settings: NetworkSettings, tmp_path: Path) -> None:
    model = random_model(settings)
    hf.export(model, "nnunet", tmp_path / "made", proof=False)
    found = read_source(tmp_path / "made" / RESULTS)
    assert found.classes == model.card.classes
    assert found.models is not None
    again = build(type(settings).model_validate(found.models), 1, 3).network
    tensors = {n: t for n, t in found.tensors.items() if n in again.state_dict()}
    again.load_state_dict(tensors)
    image = torch.randn(1, 1, *(2 * n for n in model.anatomy.divisor))
    with torch.inference_mode():
        expected = model.anatomy.network.eval()(image)
        torch.testing.assert_close(again.eval()(image), expected, rtol=0, atol=0)


def test_an_export_with_the_name_of_a_dataset_is_that_dataset(tmp_path: Path) -> None:
    """The number and the name of `-o`, as `convert` takes them; nnU-Net finds it by `-d 104`."""
    model = random_model(OF_NNUNET)
    made = hf.export(model, "nnunet", tmp_path / "Dataset104_Hippo", proof=False)
    results = made.folder / Path(RESULTS).name
    assert json.loads((results / "plans.json").read_text())["dataset_name"] == "Dataset104_Hippo"
    assert "-d 104" in made.usage
    assert "999" not in made.usage
    assert not list(made.folder.rglob("*999*"))
    for path in (made.folder, results):
        assert read_source(path).classes == model.card.classes


def test_sizes_follow_the_axes_of_the_network(tmp_path: Path) -> None:
    spacing = {"spacing_mm": (0.5, 1.0, 2.0), "resampling": "nnunet", "intensity_first": True}
    model = random_model(OF_NNUNET, window_vox=(40, 48, 56), **spacing)
    hf.export(model, "nnunet", tmp_path / "made", proof=False)
    plans = json.loads((tmp_path / "made" / RESULTS / "plans.json").read_text())
    (configuration,) = plans["configurations"].values()
    assert OF_NNUNET.orientation == "RSA"
    assert configuration["spacing"] == [0.5, 2.0, 1.0]
    assert configuration["patch_size"] == [40, 56, 48]
    assert plans["transpose_forward"] == [2, 0, 1]
    axes = np.array(["S", "A", "R"])
    assert "".join(axes[plans["transpose_forward"]]) == OF_NNUNET.orientation
    assert (axes[plans["transpose_forward"]][plans["transpose_backward"]] == axes).all()


@pytest.mark.parametrize(
    ("intensity", "scheme"),
    [
        ({"kind": "zscore"}, "ZScoreNormalization"),
        ({"kind": "zscore", "mask": "nonzero_filled"}, "ZScoreNormalization"),
        ({"kind": "zscore", "clip": (-5, 9), "mean": 1, "std": 2}, "CTNormalization"),
        ({"kind": "minmax"}, "RescaleTo01Normalization"),
        ({"kind": "none"}, "NoNormalization"),
    ],
)
def test_intensities_have_nnunets_names(
    intensity: dict[str, Any], scheme: str, tmp_path: Path
) -> None:
    model = random_model(OF_NNUNET, intensity=(intensity,))
    hf.export(model, "nnunet", tmp_path / "made", proof=False)
    plans = json.loads((tmp_path / "made" / RESULTS / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == [scheme]
    assert configuration["use_mask_for_norm"] == [intensity.get("mask") == "nonzero_filled"]
    known = plans["foreground_intensity_properties_per_channel"]["0"]
    assert known.get("percentile_99_5") == (9 if scheme == "CTNormalization" else None)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({}, "models=unet"),
        ({"settings": NnUNetSettings(orientation="LPI")}, "orientation=LPI"),
        ({"settings": OF_NNUNET, "spacing_mm": (1, 1, 1)}, "spacing_mm: 1.0, 1.0, 1.0"),
        ({"settings": OF_NNUNET, "intensity": ({"kind": "percentile"},)}, "intensity: percentile"),
        ({"settings": OF_NNUNET, "orientation": "LPS"}, "orientation: LPS"),
    ],
    ids=["network", "reversed", "resampling", "intensity", "orientation"],
)
def test_a_model_that_nnunet_cannot_run_is_refused(
    model: dict[str, Any], found: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=found):
        hf.export(
            random_model(**{"settings": SMALL, **model}), "nnunet", tmp_path / "m", proof=False
        )
    assert not (tmp_path / "m").exists()
