"""Plans say how images are prepared; nnU-Net's own numbers are those of test_nnunet_client.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.data.preprocessing.normalise_intensity import normalise_intensity
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.nnunet_folder import read_nnunet
from hsf_finetune.weights.sources.nnunet_preprocessing import (
    read_preprocessing,
    unusual_resampling,
)
from tests.weights.sources.test_nnunet_folder import PLAIN, RESIDUAL

AXES = (2, 1, 0)
STATISTICS = {"mean": 40.0, "std": 20.0, "percentile_00_5": -50.0, "percentile_99_5": 90.0}


def _read(*schemes: str, masks: list[bool] | None = None, **changes: Any) -> Preprocessing:
    channels = range(len(schemes))
    chosen = {
        "spacing": [3.0, 2.0, 1.0],
        "patch_size": [16, 32, 48],
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": masks,
        **changes,
    }
    plans = {"foreground_intensity_properties_per_channel": {str(n): STATISTICS for n in channels}}
    return read_preprocessing(plans, chosen, AXES, Path("plans.json"))


def test_sizes_are_those_of_the_network_s_axes() -> None:
    how = _read("ZScoreNormalization")
    assert how.spacing_mm == (1, 2, 3)
    assert how.patch_vox == how.window_vox == (48, 32, 16)
    assert (how.resampling, how.intensity_first, how.crop) == ("nnunet", True, "nonzero")
    assert (how.padding, how.padded_size, how.fill_values) == ("symmetric", "window", "kept")


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("ZScoreNormalization", lambda v: (v - v.mean()) / v.std()),
        ("CTNormalization", lambda v: (np.clip(v, -50, 90) - 40) / 20),
        ("NoNormalization", lambda v: v),
        ("RescaleTo01Normalization", lambda v: (v - v.min()) / (v.max() - v.min())),
        ("RGBTo01Normalization", lambda v: v / 255),
    ],
)
def test_intensities_become_those_of_the_scheme(scheme: str, expected: Any) -> None:
    voxels = np.random.default_rng(0).normal(40, 100, (20, 30, 40)).astype(np.float32)
    [intensity] = _read(scheme).intensity
    ours = normalise_intensity(torch.from_numpy(voxels), intensity).numpy()
    np.testing.assert_allclose(ours, expected(voxels), rtol=1e-4, atol=1e-4)


def test_the_mask_counts_for_z_scores_of_its_channel() -> None:
    how = _read("ZScoreNormalization", "CTNormalization", masks=[True, True])
    assert [getattr(one, "mask", "whole") for one in how.intensity] == ["nonzero_filled", "whole"]


def test_channels_with_one_scheme_have_one_entry() -> None:
    def kinds(how: Preprocessing) -> list[str]:
        return [one.kind for one in how.intensity]

    assert kinds(_read("ZScoreNormalization", "ZScoreNormalization")) == ["zscore"]
    assert kinds(_read("NoNormalization", "ZScoreNormalization")) == ["none", "zscore"]


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(WeightsError, match=r"(?s)plans\.json.*MyNormalization.*ZScoreNormal"):
        _read("MyNormalization")


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (IndexError, {"patch_size": [16]}),
        (KeyError, {"normalization_schemes": ["ZScoreNormalization", "CTNormalization"]}),
        (ValueError, {"use_mask_for_norm": [True, False]}),
        (ValidationError, {"normalization_schemes": []}),
    ],
)
def test_plans_that_lack_something(error: type[Exception], changes: dict[str, Any]) -> None:
    with pytest.raises(error):
        _read("ZScoreNormalization", **changes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, None),
        ({"resampling_fn_data": "no_resampling_hack", "resampling_fn_data_kwargs": {}}, None),
        (
            {
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"order": 3, "force_separate_z": None},
            },
            None,
        ),
        ({"resampling_fn_data_kwargs": {"order": 1}}, "order=1"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resample_torch_fornnunet"),
    ],
)
def test_resampling_that_is_not_repeated_is_said(given: dict[str, Any], said: str | None) -> None:
    found = unusual_resampling(given)
    assert found == said or (found is not None and said is not None and said in found)


def test_images_that_were_not_resampled_keep_their_voxels() -> None:
    assert _read("NoNormalization", resampling_fn_data="no_resampling_hack").spacing_mm is None


@pytest.mark.parametrize("folder", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_a_source_brings_its_preprocessing(folder: Path) -> None:
    how = read_nnunet(folder).preprocessing
    assert how is not None
    assert how.spacing_mm == pytest.approx((1.0, 2.6, 0.8))
    assert how.window_vox == (16, 8, 24)
    assert how.channel_names == ("T1w", "noNorm")
    assert [one.kind for one in how.intensity] == ["zscore", "none"]
