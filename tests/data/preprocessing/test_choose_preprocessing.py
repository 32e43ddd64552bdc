"""How scans are prepared: each part from the user, the weights, the data or HSF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import HSF_PREPROCESSING, Preprocessing
from hsf_finetune.config.settings.preprocessing_settings import (
    MinMaxIntensity,
    PercentileIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.data.preprocessing.choose_preprocessing import (
    KnownPreprocessing,
    PreprocessingChoice,
    choose_preprocessing,
)
from hsf_finetune.system.console import text_of
from hsf_finetune.system.errors import ConfigError
from tests.data.writing import case

WEIGHTS = Preprocessing(
    orientation="LPS",
    spacing_mm=(1.5, 1.5, 1.5),
    intensity=(WindowIntensity(low=-175, high=250),),
    crop="positive",
    padding="end",
    window_vox=(96, 96, 96),
)
PER_CHANNEL = Preprocessing(
    intensity=(MinMaxIntensity(), PercentileIntensity()), channel_names=("T1w", "T2w")
)


def choose(
    *overrides: str,
    weights: Preprocessing | None = None,
    resumed: Preprocessing | None = None,
    channels: int = 1,
    cases: Any = (),
) -> PreprocessingChoice:
    known = KnownPreprocessing(weights, resumed)
    settings = compose("finetune", ["datasets.patch_vox=[128,128,128]", *overrides])
    return choose_preprocessing(settings, cases, channels, known)


def changed(value: Preprocessing, **parts: Any) -> Preprocessing:
    return Preprocessing.model_validate({**dict(value), "patch_vox": (128, 128, 128), **parts})


@pytest.fixture
def cases(tmp_path: Path) -> list[Any]:
    return [case(tmp_path, f"c{n}", seed=n) for n in range(3)]


def test_without_weights_all_is_as_in_hsf() -> None:
    for option in ("hsf", "weights"):
        found = choose(f"preprocessing={option}")
        assert found.value == changed(HSF_PREPROCESSING)
        assert found.origins["intensity"] == "HSF's rules"


def test_the_weights_are_asked_unless_told_otherwise(cases: list[Any]) -> None:
    found = choose(weights=WEIGHTS, cases=cases)
    assert found.value == changed(WEIGHTS)
    assert {found.origins[part] for part in ("crop", "spacing_mm", "window_vox")} == {"the weights"}
    assert choose("preprocessing=hsf", weights=WEIGHTS, cases=cases).value == changed(
        HSF_PREPROCESSING
    )


def test_single_parts_are_the_users(cases: list[Any]) -> None:
    found = choose(
        "preprocessing.crop=none",
        "preprocessing.intensity={kind: zscore, mask: nonzero}",
        "datasets.window_vox=[64,64,64]",
        weights=WEIGHTS,
        cases=cases,
    )
    own: dict[str, Any] = {
        "crop": "none",
        "intensity": (ZScoreIntensity(mask="nonzero"),),
        "window_vox": (64, 64, 64),
    }
    assert found.value == changed(WEIGHTS, **own)
    assert found.origins["crop"] == found.origins["intensity"] == "your settings"
    assert found.origins["window_vox"] == "datasets.window_vox"
    assert found.origins["orientation"] == "the weights"


def test_voxels_far_from_those_of_the_weights_are_warned_about(cases: list[Any]) -> None:
    far = Preprocessing(spacing_mm=(1.5, 1.5, 1.5))
    (warning,) = choose(weights=far, cases=cases).warnings
    assert "1.5 x 1.5 x 1.5 mm, and those of the data are 0.8 x 0.9 x 1.1 mm: 1.9 times" in warning
    assert "preprocessing.spacing=data" in warning
    kept = choose("preprocessing.spacing=data", weights=far, cases=cases)
    assert kept.value.spacing_mm is None
    assert "trained at 0.8 x 0.9 x 1.1 mm: what the weights know" in kept.warnings[0]
    (other,) = choose("preprocessing.spacing=[3,3,3]", weights=far, cases=cases).warnings
    assert "trained at 3 x 3 x 3 mm" in other
    near = far.model_copy(update={"spacing_mm": (1.0, 1.0, 1.0)})
    assert choose(weights=near, cases=cases).warnings == ()


@pytest.mark.parametrize(
    ("patch", "padded_size", "window", "fitted"),
    [
        ((160, 160, 160), "window", (10, 9, 8), True),
        ((160, 160, 160), "multiple", (160, 160, 160), True),
        ((6, 160, 8), "window", (6, 9, 8), True),
        ((6, 6, 6), "window", (6, 6, 6), False),
        ((128, 128, 128), "window", (10, 9, 8), True),
        ((128, 128, 128), "multiple", (128, 128, 128), False),
    ],
)
def test_patches_of_the_weights_are_as_large_as_scans_at_most(
    cases: list[Any], patch: Any, padded_size: Any, window: Any, fitted: bool
) -> None:
    theirs = Preprocessing(patch_vox=patch, window_vox=patch, padded_size=padded_size)
    found = choose(weights=theirs, cases=cases)
    assert found.value.window_vox == window
    assert found.value.patch_vox == (
        tuple(min(pair) for pair in zip(patch, (10, 9, 8), strict=True)) if fitted else patch
    )
    assert found.origins["patch_vox"].startswith("the weights")
    assert [line for line in found.warnings if "no scan that trains is so large" in line] == (
        list(found.warnings) if fitted else []
    )
    own = choose("datasets.patch_vox=[32,32,32]", weights=theirs, cases=cases)
    assert own.value.patch_vox == (32, 32, 32)
    assert own.origins["patch_vox"] == "datasets.patch_vox"


def test_other_channels_than_those_of_the_weights_are_named() -> None:
    def said(*names: str, channels: int = 1, theirs: tuple[str, ...]) -> str:
        settings = compose(
            "finetune", [f"datasets.channel_names=[{','.join(names)}]"] * bool(names)
        )
        known = KnownPreprocessing(channel_names=theirs)
        return "\n".join(choose_preprocessing(settings, (), channels, known).warnings)

    assert "are CT, and those of the data T2w: finetuning.input_channels" in said(
        "T2w", theirs=("CT",)
    )
    assert "'datasets.channel_names=[T1w, T2w]' names them" in said(
        channels=2, theirs=("T1w", "T2w")
    )
    assert said("T2w", "T1w", channels=2, theirs=("T1w", "T2w")) == said(theirs=("CT",)) == ""


def test_the_former_name_of_the_voxel_size() -> None:
    old = choose("datasets.target_spacing_mm=[1,1,2]")
    assert old.value == choose("preprocessing.spacing=[1,1,2]").value
    assert old.value.spacing_mm == (1, 1, 2)
    assert old.origins["spacing_mm"] == "your settings"
    with pytest.raises(ConfigError, match=r"datasets.target_spacing_mm: is the former name"):
        choose("datasets.target_spacing_mm=[1,1,2]", "preprocessing.spacing=[1,1,1]")


def test_a_run_that_is_resumed_goes_on_as_it_was() -> None:
    first = Preprocessing(padding="end", crop="none", window_vox=(96, 96, 96))
    found = choose(resumed=first)
    assert found.value == changed(first)
    assert found.origins["padding"] == "the resumed run"


def test_nnunets_rules_are_those_of_the_data(cases: list[Any]) -> None:
    found = choose("preprocessing=nnunet", cases=cases, weights=WEIGHTS)
    assert found.value.spacing_mm == pytest.approx((0.8, 0.9, 1.1))
    assert found.origins["spacing_mm"] == "the data, by nnU-Net's rules"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[{kind: minmax},{kind: percentile}]", PER_CHANNEL.intensity),
        ("{T2w: {kind: percentile}, T1w: {kind: minmax}}", PER_CHANNEL.intensity),
        ("{kind: minmax}", (MinMaxIntensity(),)),
    ],
)
def test_intensities_for_each_channel(given: str, expected: Any) -> None:
    names = "datasets.channel_names=[T1w,T2w]"
    found = choose(f"preprocessing.intensity={given}", names, channels=2)
    assert found.value.intensity == expected
    assert found.value.intensity_of(1) == expected[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[{kind: minmax},{kind: percentile}]", "one entry for each input channel"),
        ("{T2: {kind: minmax}}", "did you mean 'T2w'"),
        ("{T2w: {kind: minmax}}", "does not name the input channels"),
    ],
)
def test_intensities_of_other_channels_are_refused(given: str, message: str) -> None:
    names = "datasets.channel_names=[T1w,T2w,PD]"
    with pytest.raises(ConfigError, match=message):
        choose(f"preprocessing.intensity={given}", names, channels=3)


def test_channels_of_the_weights_are_found_by_name() -> None:
    one = choose("datasets.channel_names=[T2w]", weights=PER_CHANNEL)
    assert one.value.intensity == (PercentileIntensity(),)
    assert choose(weights=PER_CHANNEL, channels=2).value.intensity == PER_CHANNEL.intensity
    with pytest.raises(ConfigError, match="intensities of other channels"):
        choose("datasets.channel_names=[CT]", weights=PER_CHANNEL)
    # What the error says to write is taken.
    given = ("datasets.channel_names=[CT]", "preprocessing.intensity={kind: zscore}")
    assert choose(*given, weights=PER_CHANNEL).value.intensity == (ZScoreIntensity(),)


def test_the_table_says_what_is_done_and_why(cases: list[Any]) -> None:
    text = text_of(choose(weights=WEIGHTS, cases=cases).table())
    assert "-175 to 250 to 0 and 1, clipped" in text
    assert "1.5 x 1.5 x 1.5" in text
    assert "the weights" in text
