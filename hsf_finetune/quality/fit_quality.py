"""Fits what foretells Dice, on held-out cases and degraded copies of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
import scipy
from scipy.special import ndtri, stdtrit

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.check_volumes import on_grid_of, to_label_rows
from hsf_finetune.data.volumes.read_volume import Volume, read_volume
from hsf_finetune.inference.quality_model import (
    FEWEST_SUBJECTS,
    TEMPERATURE,
    QualityModel,
    to_dice,
    to_loss,
)
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.quality.degraded_scans import KINDS, Rows, degrade
from hsf_finetune.system.atomic_files import read_csv, write_csv
from hsf_finetune.system.errors import DataError

COVERAGE = 0.9
"""Share of the segmentations that shall reach the Dice that is foretold as their bound."""
MOST_VOXELS = 5_000_000
"""In all copies together: some 60 crops around a hippocampus, or one scan of the head."""
_MOST_COPIES = 2 * len(KINDS)
"""Of one case."""
_PRIOR = 2.0
"""Weight, in segmentations, of the belief that the model's own estimate is right."""


@dataclass(frozen=True)
class QualityCase:
    """One class of one scan, or of a degraded copy of it, whose truth is known.

    Args:
        case: name of the case.
        subject: of the case.
        copy: kind and number of the copy; empty for the scan itself.
        class_name: the class.
        dice: true Dice.
        sureness: of the class, see `SurenessSums`.
    """

    case: str
    subject: str
    copy: str
    class_name: str
    dice: float
    sureness: float


def measure_quality(
    model: ScanModel,
    cases: Sequence[Case],
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[QualityCase]:
    """Segments cases and degraded copies of them, and compares the result with the truth.

    How many copies are made depends on the size of the scans: `MOST_VOXELS` in all.

    Args:
        model: that did not train on the cases.
        cases: with their labels.
        seed: of the degradations.
        progress: called with (cases done, all) after each case.
    """
    found: list[QualityCase] = []
    kinds = [*KINDS]
    for number, case in enumerate(cases):
        channels = [read_volume(ref) for ref in case.images]
        label = on_grid_of(channels[0], read_volume(case.label))
        rows = to_label_rows(label, case.protocol)
        found += _measure(model, case, "", channels, rows)
        for copy in range(min(int(MOST_VOXELS / len(cases) / rows.size), _MOST_COPIES)):
            # In turns from case to case, so that few copies of each have all kinds together.
            kind = kinds[(number * 3 + copy) % len(kinds)]
            random = np.random.default_rng((seed, number, copy))
            try:
                changed = degrade(kind, channels, rows, random)
                found += _measure(model, case, f"{kind} {copy}", *changed)
            except DataError:  # such as a crop of one intensity
                continue
        progress(number + 1, len(cases))
    return found


def fit_quality(cases: Sequence[QualityCase]) -> QualityModel | None:
    """What foretells Dice best on these; None of fewer than `FEWEST_SUBJECTS` subjects."""
    subjects = {case.subject for case in cases}
    if len(subjects) < FEWEST_SUBJECTS:
        return None
    foretold: dict[QualityCase, float] = {}
    for subject in subjects:
        fitted = _fit([one for one in cases if one.subject != subject])
        foretold |= {one: fitted.loss(one) for one in cases if one.subject == subject}
    volumes: dict[tuple[str, str], list[QualityCase]] = {}
    for one in foretold:
        volumes.setdefault((one.case, one.copy), []).append(one)
    mean_errors = [
        to_loss(fmean(one.dice for one in some))
        - to_loss(fmean(to_dice(foretold[one]) for one in some))
        for some in volumes.values()
    ]
    errors = [to_loss(one.dice) - loss for one, loss in foretold.items()]
    fitted = _fit(cases)
    # A quantile of few subjects is uncertain: it is widened as that of a normal distribution is.
    t = stdtrit(len(subjects) - 1, COVERAGE) / ndtri(COVERAGE)
    wider = float(t) * math.sqrt(1 + 1 / len(subjects))
    return QualityModel(
        fitted.constants,
        fitted.slope,
        margin=wider * _quantile(errors, [one.copy for one in foretold]),
        mean_margin=wider * _quantile(mean_errors, [copy for _, copy in volumes]),
        typical=fmean(to_dice(fitted.loss(one)) for one in cases if not one.copy),
        coverage=COVERAGE,
        subjects=len(subjects),
        volumes=len(volumes),
        temperature=TEMPERATURE,
    )


def write_quality_cases(path: Path, cases: Iterable[QualityCase]) -> None:
    """Writes a line for each as CSV."""
    write_csv(path, [field.name for field in fields(QualityCase)], map(astuple, cases))


def read_quality_cases(path: Path) -> list[QualityCase]:
    """What `write_quality_cases` wrote; nothing where there is no such file."""
    if not path.exists():
        return []
    return [
        QualityCase(case, subject, copy, name, float(dice), float(sureness))
        for case, subject, copy, name, dice, sureness in read_csv(path)[1:]
    ]


# -------------------------------------------------------------------- internals
@dataclass(frozen=True)
class _Line:
    """A constant for each class, and the slope that they share."""

    constants: dict[str, float]
    slope: float

    def loss(self, one: QualityCase) -> float:
        """The loss that is expected of a segmentation."""
        typical = fmean(self.constants.values())
        return self.constants.get(one.class_name, typical) + self.slope * to_loss(one.sureness)


def _measure(
    model: ScanModel, case: Case, copy: str, channels: Sequence[Volume], rows: Rows
) -> list[QualityCase]:
    """The classes that the case's protocol shows by themselves."""
    found, allowed = model.segment(channels, sure=True), case.protocol.matrix
    measured = []
    for row, members in enumerate(allowed):
        (numbers,) = members.nonzero()
        if len(numbers) != 1 or numbers[0] == 0 or not (rows == row).any():
            continue
        number, name = int(numbers[0]), model.card.classes[numbers[0]]
        # Voxels whose label leaves open whether they are this class do not count.
        open_rows = [other for other, may in enumerate(allowed[:, number]) if may and other != row]
        predicted = (found.labels == found.label_values[name]) & ~np.isin(rows, open_rows)
        both = int(((rows == row) & predicted).sum())
        dice = 2 * both / (int((rows == row).sum()) + int(predicted.sum()))
        sureness = found.sureness[number - 1]
        measured.append(QualityCase(case.name, case.subject, copy, name, dice, sureness))
    return measured


def _fit(cases: Sequence[QualityCase]) -> _Line:
    """Least squares, scans and copies alike in weight; few of them bend a weak prior little.

    The prior: the classes are alike, and Dice is the sureness.
    """
    names = list(dict.fromkeys(one.class_name for one in cases))
    roots = np.sqrt(_weights([one.copy for one in cases]))
    design = [
        [1.0, to_loss(one.sureness), *(float(one.class_name == name) for name in names)]
        for one in cases
    ]
    target = [to_loss(one.dice) for one in cases]
    strengths = np.sqrt([0.0, *[_PRIOR] * (1 + len(names))])
    found = scipy.optimize.lsq_linear(
        np.vstack([roots[:, None] * design, np.diag(strengths)]),
        np.concatenate([roots * target, strengths * ([0.0, 1.0] + [0.0] * len(names))]),
        ([-np.inf, 0.0] + [-np.inf] * len(names), np.inf),
    ).x.tolist()
    constant, slope, *own = found
    return _Line(dict(zip(names, (constant + one for one in own), strict=True)), slope)


def _weights(copies: Sequence[str]) -> npt.NDArray[np.float64]:
    """Weights, 1 in the mean, by which scans count as much as all of their copies together."""
    degraded = np.array([bool(copy) for copy in copies])
    if degraded.all() or not degraded.any():
        return np.ones(len(degraded))
    weights: npt.NDArray[np.float64] = np.where(
        degraded, 1 / degraded.mean(), 1 / (~degraded).mean()
    )
    return weights / 2


def _quantile(errors: Sequence[float], copies: Sequence[str]) -> float:
    """The weighted quantile of the errors that a share `COVERAGE` does not exceed."""
    order = np.argsort(errors)
    shares = np.cumsum(_weights(copies)[order]) / len(errors)
    place = min(int(np.searchsorted(shares, COVERAGE)), len(errors) - 1)
    return float(np.asarray(errors)[order][place])
