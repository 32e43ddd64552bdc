"""How well the volumes of segmentations agree with those of the labels, class by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text
from scipy.special import fdtri

from hsf_finetune.evaluation.intervals import Interval, bootstrap_interval
from hsf_finetune.evaluation.score_tables import ScoreRow, format_interval
from hsf_finetune.system.console import TitledTable, format_size

Floats = npt.NDArray[np.float64]

_NORMAL_95 = 1.96
_LEAST_BIAS_PERCENT = -100.0
"""Where nothing of a class is found."""
FEWEST_SUBJECTS = 3
"""Below it an intraclass correlation has no interval."""


@dataclass(frozen=True)
class VolumeAgreement:
    """Agreement of predicted and true volumes of one class, over the cases whose label has it.

    Args:
        class_name: the class.
        truth_mm3: true volume of each case, in mm3.
        predicted_mm3: predicted volume of each case, in mm3.
        bias_percent: mean of predicted less true volume, in percent of their mean true volume.
        limits_mm3: limits of agreement of predicted less true volume (Bland and Altman,
            Lancet 327:307-310, 1986): mean -/+ 1.96 standard deviations; NaN for one case.
        icc: intraclass correlation over subjects, see `intraclass_correlation`.
    """

    class_name: str
    truth_mm3: Floats
    predicted_mm3: Floats
    bias_percent: Interval
    limits_mm3: tuple[float, float]
    icc: Interval

    @property
    def differences_mm3(self) -> Floats:
        """Predicted less true volume of each case, in mm3."""
        return self.predicted_mm3 - self.truth_mm3


def agree_in_volume(rows: Iterable[ScoreRow]) -> list[VolumeAgreement]:
    """The agreement of every class, in order of first appearance."""
    parts: dict[str, list[ScoreRow]] = {}
    for row in rows:
        if row.score.volume_truth_mm3 > 0:
            parts.setdefault(row.score.class_name, []).append(row)
    return [_agree(name, part) for name, part in parts.items()]


def intraclass_correlation(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, subjects: Sequence[str]
) -> Interval:
    """ICC(A,1): absolute agreement of single measurements, with its 95 % interval.

    Two-way model, McGraw and Wong, Psychological Methods 1:30-46, 1996, table 7. The cases of
    one subject (its two sides) are not independent: their mean is one measurement.

    Args:
        truth: true volumes, one per case.
        predicted: predicted volumes, likewise.
        subjects: the subject of each case.

    Returns:
        The interval, which may be below 0; NaN with fewer than `FEWEST_SUBJECTS` subjects, or
        where no volume differs from any other.
    """
    pairs = np.stack([np.asarray(truth, float), np.asarray(predicted, float)], axis=1)
    names = np.asarray(subjects)
    table = np.array([pairs[names == name].mean(axis=0) for name in dict.fromkeys(subjects)])
    n, k = table.shape
    nothing = Interval(math.nan, math.nan, math.nan, len(pairs), n)
    if n < FEWEST_SUBJECTS:
        return nothing
    mean = table.mean()
    of_rows, of_columns = table.mean(axis=1), table.mean(axis=0)
    rows = k * ((of_rows - mean) ** 2).sum() / (n - 1)
    columns = n * ((of_columns - mean) ** 2).sum() / (k - 1)
    residuals = table - of_rows[:, None] - of_columns + mean
    rest = max(float((residuals**2).sum() / ((n - 1) * (k - 1))), 1e-12 * rows)
    scale = rows + (k - 1) * rest + k / n * (columns - rest)
    if not scale > 0:
        return nothing
    icc = float((rows - rest) / scale)
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    spread = (a * columns) ** 2 / (k - 1) + (b * rest) ** 2 / ((n - 1) * (k - 1))
    freedom = (a * columns + b * rest) ** 2 / spread
    below, above = fdtri(n - 1, freedom, 0.975), fdtri(freedom, n - 1, 0.975)
    shared = k * columns + (k * n - k - n) * rest
    low = n * (rows - below * rest) / (below * shared + n * rows)
    high = n * (above * rows - rest) / (shared + n * above * rows)
    return Interval(icc, min(float(low), icc), max(float(high), icc), len(pairs), n)


def volumes_table(agreements: Sequence[VolumeAgreement]) -> Table:
    """One row per class: mean volumes, bias, limits of agreement, intraclass correlation."""
    table = TitledTable(
        "Volumes against the labels",
        "bias: predicted less true, in % of the mean true volume [95 % interval over subjects];\n"
        "limits of agreement: mean difference -/+ 1.96 standard deviations (Bland, Altman 1986);\n"
        "ICC(A,1): absolute agreement over subjects [95 % interval] (McGraw, Wong 1996).",
    )
    table.add_column("class", overflow="fold")
    for heading in ("true mm3", "predicted mm3", "bias %", "limits of agreement mm3", "ICC"):
        table.add_column(heading, justify="right")
    for one in agreements:
        limits = " to ".join(format_size(limit, sign="+") for limit in one.limits_mm3)
        table.add_row(
            Text(one.class_name),
            format_size(float(one.truth_mm3.mean())),
            format_size(float(one.predicted_mm3.mean())),
            format_interval(one.bias_percent, sign="+", digits=1),
            limits if len(one.truth_mm3) > 1 else "-",
            format_interval(one.icc) if not math.isnan(one.icc.mean) else "-",
        )
    return table


def _agree(name: str, rows: Sequence[ScoreRow]) -> VolumeAgreement:
    truth = np.array([row.score.volume_truth_mm3 for row in rows])
    predicted = np.array([row.score.volume_predicted_mm3 for row in rows])
    subjects = [row.subject for row in rows]
    change = predicted - truth
    spread = _NORMAL_95 * float(change.std(ddof=1)) if len(change) > 1 else math.nan
    bias = bootstrap_interval(
        100 * change / truth.mean(), subjects, bounds=(_LEAST_BIAS_PERCENT, math.inf)
    )
    limits = (float(change.mean()) - spread, float(change.mean()) + spread)
    icc = intraclass_correlation(truth, predicted, subjects)
    return VolumeAgreement(name, truth, predicted, bias, limits, icc)
