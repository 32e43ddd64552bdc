"""Plans of nnU-Net as settings: the same network, and scans prepared alike."""

from __future__ import annotations

from pathlib import Path

import pytest

import hsf_finetune as hf
from hsf_finetune.config.compose import compose
from hsf_finetune.convert.plans_as_settings import write_settings
from hsf_finetune.data.preprocessing.choose_preprocessing import (
    KnownPreprocessing,
    choose_preprocessing,
)
from hsf_finetune.system.errors import OutputError
from hsf_finetune.weights.sources.nnunet_plans import json_object, read_plans
from tests.export.models import OF_NNUNET, random_model

CT = {"kind": "zscore", "clip": (-5, 9), "mean": 1, "std": 2}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"spacing_mm": (0.5, 1.0, 2.0), "resampling": "nnunet", "intensity_first": True},
        {"intensity": (CT,), "padding": "symmetric", "padded_size": "window"},
    ],
    ids=["plain", "resampled", "CT"],
)
def test_training_with_them_is_as_the_plans_say(how: dict[str, object], tmp_path: Path) -> None:
    hf.export(random_model(OF_NNUNET, **how), "nnunet", tmp_path / "made", proof=False)
    (plans,) = (tmp_path / "made").glob("*/*/plans.json")
    own = tmp_path / "my_conf"
    command = write_settings(plans, own, "3d_fullres", "RAS")
    words = [word for word in command.split() if word.startswith(("models", "prep", "datasets."))]
    settings = compose("train", ["datasets=custom", *words], own)
    expected = read_plans(json_object(plans), "3d_fullres", "RAS", plans)
    found = settings.models.model_dump(mode="json")
    assert {key: found[key] for key in expected.models} == dict(expected.models)
    chosen = choose_preprocessing(settings, (), 1, KnownPreprocessing()).value
    assert chosen == expected.preprocessing
    with pytest.raises(OutputError, match="never written over"):
        write_settings(plans, own, "3d_fullres", "RAS")
