"""Each kind of intensity, against an independent formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms.intensity.array import (
    NormalizeIntensity,
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
)

from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    UnchangedIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.data.preprocessing.normalise_intensity import normalise_intensity
from tests.closeness import assert_equal_up_to_rounding
from tests.data.writing import scan

Array = np.ndarray[Any, Any]


def emptied() -> Array:
    """A scan of which a part is 0."""
    image = scan()
    image[:4], image[:, :2] = 0, 0
    return image


def nonzero_z_score(image: Array) -> Array:
    inside = image[image != 0].astype(np.float64)
    return np.where(image != 0, (image - inside.mean()) / inside.std(ddof=1), 0)


def nonzero_percentile(image: Array) -> Array:
    low, high = np.percentile(image[image != 0], [5, 95])
    return np.where(image != 0, np.clip((image - low) / (high - low), 0, 1) * 3 - 1, -1)


KINDS: dict[str, tuple[Intensity, Callable[[Array], Any]]] = {
    "none": (UnchangedIntensity(), lambda image: image),
    "window": (
        WindowIntensity(low=80, high=110),
        ScaleIntensityRange(80, 110, 0, 1, clip=True),
    ),
    "window, not clipped": (
        WindowIntensity(low=80, high=110, to=(-1, 2), clip=False),
        ScaleIntensityRange(80, 110, -1, 2, clip=False),
    ),
    "percentile": (
        PercentileIntensity(low=5, high=95, to=(0, 2)),
        ScaleIntensityRangePercentiles(5, 95, 0, 2, clip=True),
    ),
    "percentile, nonzero": (
        PercentileIntensity(low=5, high=95, to=(-1, 2), mask="nonzero"),
        nonzero_percentile,
    ),
    "minmax": (MinMaxIntensity(to=(-1, 1)), ScaleIntensity(-1, 1)),
    "zscore": (ZScoreIntensity(), lambda image: (image - image.mean()) / image.std(ddof=1)),
    "zscore, nonzero": (ZScoreIntensity(mask="nonzero"), nonzero_z_score),
    "zscore, given numbers": (
        ZScoreIntensity(mean=90, std=20),
        NormalizeIntensity(subtrahend=90, divisor=20),
    ),
    "nnU-Net's CTNormalization": (
        ZScoreIntensity(clip=(80, 120), mean=90, std=20),
        lambda image: (np.clip(image, 80, 120) - 90) / 20,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_its_formula(kind: str) -> None:
    intensity, formula = KINDS[kind]
    image = emptied()
    found = normalise_intensity(torch.from_numpy(image), intensity)
    assert found.dtype == torch.float32
    expected = np.asarray(formula(image.astype(np.float64)))
    assert_equal_up_to_rounding(found, expected, precision=np.float32)


@given(st.floats(-1000, 1000), st.floats(0.01, 1000))
def test_z_scores_percentiles_and_min_max_undo_shift_and_scale(shift: float, scale: float) -> None:
    image = torch.from_numpy(scan()).double()
    for intensity in (ZScoreIntensity(), PercentileIntensity(), MinMaxIntensity()):
        normal = normalise_intensity(image, intensity)
        assert_equal_up_to_rounding(
            normalise_intensity(image * scale + shift, intensity), normal, precision=normal.dtype
        )


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_outside_count_for_nothing(kind: str) -> None:
    intensity, _ = KINDS[kind]
    image = torch.from_numpy(scan())
    outside = torch.zeros(image.shape, dtype=torch.bool)
    outside[:3] = True
    wrong = image.masked_fill(outside, 1e6)
    found = normalise_intensity(wrong, intensity, outside)
    lowest = getattr(intensity, "to", (0.0,))[0]
    assert (found[outside] == lowest).all()
    assert torch.equal(found[~outside], normalise_intensity(image[3:], intensity).flatten())


@pytest.mark.parametrize("kind", KINDS)
def test_one_value_gives_no_infinity(kind: str) -> None:
    intensity, _ = KINDS[kind]
    for value in (0.0, 7.0):
        assert normalise_intensity(torch.full((3, 3, 3), value), intensity).isfinite().all()
