"""What is usual among the other values, for each of many: without comparing all pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def medians_of_others(values: Values) -> Values:
    """The median of all other values, for each of at least two values; (N,) -> (N,)."""
    return _of_sorted_others(values, lambda others: (others - 1) / 2)


def quantiles_of_others(values: Values, share: float) -> Values:
    """A quantile of all other values, linearly interpolated, for each of at least two."""
    return _of_sorted_others(values, lambda others: (others - 1) * share)


def spreads_of_others(values: Values, medians: Values) -> Values:
    """The median distance of all other values from their median, for each value.

    Args:
        values: (N,), at least two.
        medians: `medians_of_others` of them, of which no more than three differ.
    """
    spreads = np.empty(len(values))
    for median in np.unique(medians):
        chosen = medians == median
        spreads[chosen] = medians_of_others(np.abs(values - median))[chosen]
    return spreads


def ranges_of_others(values: Values) -> Values:
    """Largest less smallest of all other values, for each of at least two."""
    low, high = (
        _of_sorted_others(values, place) for place in (lambda others: 0, lambda others: others - 1)
    )
    return high - low


def _of_sorted_others(values: Values, place: Callable[[int], float]) -> Values:
    """The value at a place, counted from 0, among the sorted others, for each value."""
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), dtype=np.intp)
    rank[order] = np.arange(len(values))
    ordered, wanted = values[order], place(len(values) - 1)
    low, high = int(np.floor(wanted)), int(np.ceil(wanted))
    before, after = (ordered[n + (rank <= n)] for n in (low, high))
    share = wanted - low
    if share == 0.5:  # exactly as a median is computed
        return np.asarray((before + after) / 2)
    return np.asarray(before + (after - before) * share)
