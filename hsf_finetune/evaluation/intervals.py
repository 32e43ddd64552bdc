"""Intervals over subjects: by the bootstrap, or by Student's t where they are few."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

Floats = npt.NDArray[np.float64]

FEW_SUBJECTS = 8
"""Below this number of subjects an interval is Student's."""

_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Args:
        mean: mean over the cases; NaN without any.
        low: lower end; NaN where fewer than two subjects leave the spread unknown.
        high: upper end; NaN likewise.
        n: cases that have a value.
        subjects: groups those cases come from.
    """

    mean: float
    low: float
    high: float
    n: int
    subjects: int

    @property
    def kind(self) -> str:
        """How it was computed: `t` or `bootstrap`."""
        return "t" if self.subjects < FEW_SUBJECTS else "bootstrap"


def bootstrap_interval(
    values: npt.ArrayLike,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Mean of values with a bootstrap interval that resamples whole groups.

    The two sides of one person are not independent, hence the group: it is drawn or left
    out as one (cluster bootstrap; Davison and Hinkley 1997, section 3.8). The plain
    percentile interval (Efron and Tibshirani 1993, chapter 13) is too narrow for the few
    cases of a typical validation set; its shares are widened by the t quantile, "expanded
    percentile" (Hesterberg, The American Statistician 69:371-386, 2015, section 4). Below
    `FEW_SUBJECTS` groups no bootstrap interval is wide enough, as it never leaves the values
    that were seen; there it is Student's t interval, of a ratio of totals where groups differ
    in size (Cochran, Sampling Techniques, 1977, section 6.4). The order of cases and the
    names of groups do not matter.

    Args:
        values: one per case, shape (cases,); NaN is a case without a value, left out.
        groups: the subject of each case, as many as values; None takes every case as a
            subject of its own.
        confidence: how often such an interval should hold the true mean, in (0, 1).
        samples: bootstrap samples, at least 1.
        seed: of the resampling.
        bounds: values that a mean may have, at which the interval is cut.

    Returns:
        The interval; low and high are NaN with fewer than two subjects.

    Raises:
        ValueError: values are not one-dimensional, groups are of another number,
            confidence is not in (0, 1) or samples is below 1.
    """
    cases = np.asarray(values, dtype=np.float64)
    if cases.ndim != 1:
        raise ValueError(f"values must have one dimension, not {cases.ndim}")
    if groups is not None and len(groups) != len(cases):
        raise ValueError(f"{len(groups)} groups for {len(cases)} values")
    if not 0 < confidence < 1 or samples < 1:
        raise ValueError("confidence must lie between 0 and 1, and samples be at least 1")
    sums, sizes = _totals(cases, groups)
    n, subjects = int(sizes.sum()), len(sums)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, 0)
    mean = float(sums.sum() / n)
    if subjects == 1:
        return Interval(mean, math.nan, math.nan, n, 1)
    if subjects < FEW_SUBJECTS:
        half = _student_half_width(sums, sizes, mean, confidence)
        low, high = mean - half, mean + half
    else:
        share = _expanded_share(confidence, subjects)
        means = _resampled_means(sums, sizes, samples, seed)
        low, high = np.quantile(means, [share, 1 - share]).tolist()
    low, high = max(low, bounds[0]), min(high, bounds[1])
    # Sums in another order may differ in the last bit where all values are equal.
    return Interval(mean, min(low, mean), max(high, mean), n, subjects)


def _totals(cases: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and number of values per group, in an order that only the values decide."""
    kept = np.flatnonzero(~np.isnan(cases))
    keys = [i if groups is None else groups[i] for i in kept.tolist()]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    codes = np.array([numbers[key] for key in keys], dtype=np.int64)
    order = np.lexsort((cases[kept], codes))
    sums = np.bincount(codes[order], weights=cases[kept][order])
    sizes = np.bincount(codes)
    canonical = np.lexsort((sizes, sums))
    return sums[canonical].astype(np.float64), sizes[canonical].astype(np.float64)


def _student_half_width(sums: Floats, sizes: Floats, mean: float, confidence: float) -> float:
    subjects = len(sums)
    residuals = sums - mean * sizes
    error = math.sqrt(float((residuals**2).sum()) * subjects / (subjects - 1)) / sizes.sum()
    return float(-stdtrit(subjects - 1, (1 - confidence) / 2) * error)


def _expanded_share(confidence: float, subjects: int) -> float:
    """Share of bootstrap means to cut at each end."""
    t = stdtrit(subjects - 1, (1 - confidence) / 2)
    return float(ndtr(math.sqrt(subjects / (subjects - 1)) * t))


def _resampled_means(sums: Floats, sizes: Floats, samples: int, seed: int) -> Floats:
    """Means over groups drawn with replacement, shape (samples,)."""
    rng = np.random.default_rng(seed)
    subjects = len(sums)
    rows = max(1, _CELLS_AT_ONCE // subjects)
    means = []
    for start in range(0, samples, rows):
        drawn = rng.integers(subjects, size=(min(rows, samples - start), subjects))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)
