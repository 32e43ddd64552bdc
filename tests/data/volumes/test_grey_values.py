"""Grey values in their order: percentiles as NumPy's, of what is inside of the scan."""

from __future__ import annotations

import numpy as np
import pytest

from hsf_finetune.data.volumes import grey_values
from hsf_finetune.data.volumes.grey_values import GreyValues

PERCENTS = [0, 1, 5, 50, 99.5, 100]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64", "bool"])
@pytest.mark.parametrize("fill", [None, -2000])
def test_percentiles_and_shares_are_those_of_all_voxels_inside(
    dtype: str, fill: float | None
) -> None:
    array = np.random.default_rng(0).normal(100, 20, (9, 10, 11)).astype(dtype)
    counted = array
    if fill is not None and np.can_cast(np.min_scalar_type(fill), dtype):
        array[:3] = fill
        counted = array[3:]
    grey = GreyValues(array)
    assert [one.value for one in grey.fills] == ([fill] if counted is not array else [])
    np.testing.assert_allclose(grey.percentiles(PERCENTS), np.percentile(counted * 1.0, PERCENTS))
    common = float(counted.flat[5])
    assert grey.share_of(common) == pytest.approx(float(np.mean(counted == common)))


def test_the_percentiles_of_a_large_image_are_those_of_a_coarser_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grey_values, "_SAMPLED_VOX", 1000)
    array = np.random.default_rng(0).normal(size=(40, 40, 40))
    grey = GreyValues(array)
    assert len(grey.ordered) <= 1000
    np.testing.assert_allclose(grey.percentiles([5, 50, 95]), [-1.645, 0, 1.645], atol=0.2)
