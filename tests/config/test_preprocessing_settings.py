"""The `preprocessing` group: its options, single parts, and what is refused."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import HSF_PREPROCESSING, Preprocessing, PreprocessingSettings
from hsf_finetune.config.settings.preprocessing_settings import (
    MinMaxIntensity,
    PercentileIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.system.errors import ConfigError

SOFT_TISSUE = WindowIntensity(low=-175, high=250)


def group(*overrides: str) -> PreprocessingSettings:
    return compose("finetune", overrides).preprocessing


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("hsf", PreprocessingSettings(rules="hsf")),
        ("weights", PreprocessingSettings()),
        ("nnunet", PreprocessingSettings(rules="nnunet")),
        ("ct", PreprocessingSettings(intensity=SOFT_TISSUE)),
        (
            "mri_percentile",
            PreprocessingSettings(intensity=PercentileIntensity()),
        ),
    ],
)
def test_an_option_is_its_rules(option: str, expected: PreprocessingSettings) -> None:
    assert group(f"preprocessing={option}") == expected
    assert compose("train", [f"preprocessing={option}"]).preprocessing == expected


@pytest.mark.parametrize("option", ["hsf", "ct", "mri_percentile"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{kind: window, low: -175, high: 250, to: [0, 1]}", SOFT_TISSUE),
        ("{kind: zscore, mask: nonzero}", ZScoreIntensity(mask="nonzero")),
        ("{kind: percentile, low: .5, high: 99.5}", PercentileIntensity()),
        ("{kind: minmax}", MinMaxIntensity()),
        (
            "{T1w: {kind: minmax}, T2w: {kind: zscore}}",
            {"T1w": MinMaxIntensity(), "T2w": ZScoreIntensity()},
        ),
        ("[{kind: minmax}, {kind: zscore}]", [MinMaxIntensity(), ZScoreIntensity()]),
    ],
)
def test_a_kind_on_the_command_line_replaces_the_files(
    option: str, given: str, expected: object
) -> None:
    found = group(f"preprocessing={option}", f"preprocessing.intensity={given}")
    assert found.intensity == expected


def test_a_number_of_a_kind_is_changed_by_itself() -> None:
    found = group("preprocessing=ct", "preprocessing.intensity.low=-1000")
    assert found.intensity == WindowIntensity(low=-1000, high=250)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preprocessing.intensity={kind: windw, low: 0, high: 1}", "did you mean 'window'"),
        (
            "preprocessing.intensity={low: 0, high: 1}",
            r"preprocessing.intensity.kind: this setting is missing",
        ),
        (
            "preprocessing.intensity={kind: window, low: 0}",
            "intensity.high: this setting is missing",
        ),
        ("preprocessing.intensity={kind: window, low: 5, high: 1}", "not 5 and then 1"),
        ("preprocessing.intensity=zscore", "write {kind: zscore}, with what belongs to it"),
        ("preprocessing.intensity={kind: percentile, low: -1}", "intensity.low: should be greater"),
        ("preprocessing.intensity={kind: zscore, msk: nonzero}", "did you mean 'mask'"),
        ("preprocessing.intensity={T1w: {kind: minmx}}", "T1w.kind: .*did you mean 'minmax'"),
        ("preprocessing.orientation=RSA", "such as RAS or LPS"),
        ("preprocessing.spacing=[1,1]", r"such as \[1, 1, 1.2\], or data"),
        ("preprocessing.spacing=[1,-1,1]", "preprocessing.spacing: give three sizes in mm"),
        ("preprocessing.crp=none", "did you mean 'preprocessing.crop'"),
        ("preprocessing=nnunett", "did you mean preprocessing=nnunet"),
    ],
)
def test_what_is_wrong_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        group(override)


@pytest.mark.parametrize(
    "value",
    [
        HSF_PREPROCESSING,
        Preprocessing(
            orientation="LPS",
            spacing_mm=(1.5, 1.5, 2.0),
            intensity=(SOFT_TISSUE, PercentileIntensity(), MinMaxIntensity(), ZScoreIntensity()),
            patch_vox=(96, 96, 96),
            channel_names=("CT", "a", "b", "c"),
        ),
    ],
)
def test_a_value_comes_back_from_its_plain_form(value: Preprocessing) -> None:
    plain = json.loads(json.dumps(value.to_dict()))
    assert Preprocessing.from_dict(plain) == value
    assert Preprocessing.from_card({"preprocessing": plain}) == value
    assert hash(value) == hash(Preprocessing.from_dict(plain))


@pytest.mark.parametrize("plain", [{}, {"preprocessing": {"colour": 1}}, {"window_vox": [1, 2]}])
def test_a_card_that_does_not_say_it_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises((ValueError, ValidationError)):
        Preprocessing.from_card(plain)
