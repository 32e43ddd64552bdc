"""What is usual among the others is what leaving each one out in turn gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from hsf_finetune.check.usual_values import (
    medians_of_others,
    quantiles_of_others,
    ranges_of_others,
    spreads_of_others,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 30, 31])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_all_others_are_summarised_as_one_by_one(count: int, ties: bool) -> None:
    draw = RANDOM.integers(0, 4, count).astype(np.float64) if ties else RANDOM.normal(size=count)
    others: list[npt.NDArray[np.float64]] = [np.delete(draw, n) for n in range(count)]
    medians = medians_of_others(draw)
    assert np.array_equal(medians, [np.median(one) for one in others])
    assert np.array_equal(ranges_of_others(draw), [np.ptp(one) for one in others])
    expected = [np.median(np.abs(one - np.median(one))) for one in others]
    assert np.array_equal(spreads_of_others(draw, medians), expected)
    quantiles = [np.quantile(one, 0.9) for one in others]
    assert np.allclose(quantiles_of_others(draw, 0.9), quantiles, rtol=1e-14, atol=1e-15)
