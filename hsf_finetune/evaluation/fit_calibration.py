"""Fitting temperatures on validation cases, and what they change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor

from hsf_finetune.evaluation.reliability import CalibrationCase, Reliability, measure_reliability
from hsf_finetune.inference.calibration import Calibration

Floats = npt.NDArray[np.float64]
NOT_CALIBRATED = (
    "no temperature made the labels more probable without raising the expected calibration error"
)
"""Why a model has no calibration."""
_MOST_FOLDS = 5
_FEWEST_SUBJECTS = 4
"""Below it no temperatures for single classes are tried."""
_LIMITS = (math.log(0.2), math.log(10.0))


@dataclass(frozen=True)
class FittedCalibration:
    """A calibration, and the reliability before and after it.

    Args:
        calibration: None where it would not make the labels of other subjects more probable, or
            would raise the expected calibration error of their voxels.
        before: reliability as the model is.
        after: as it is calibrated by the other subjects; of one subject alone, by itself.
    """

    calibration: Calibration | None
    before: Reliability
    after: Reliability

    def reliabilities(self) -> dict[str, Reliability]:
        """`before` and `after` -> the reliability then."""
        return {"before": self.before, "after": self.after}


def fit_calibration(
    cases: Sequence[CalibrationCase], chose_epoch: bool
) -> FittedCalibration | None:
    """Temperatures for which the labels of the cases are most probable.

    One for all classes, or one for each where that makes the labels of subjects more probable
    that it was not fitted on; none where the two measures of `Calibration` do not agree that
    probabilities become better. Figures after are such, too: each fold of subjects is calibrated
    by the others. Of one subject they are of the same
    voxels, and `held_out` is false.

    Args:
        cases: of the validation.
        chose_epoch: whether they chose the epoch.
    """
    if not cases:
        return None
    subjects = list(dict.fromkeys(case.subject for case in cases))
    folds = min(len(subjects), _MOST_FOLDS)
    fold_of = {subject: number % folds for number, subject in enumerate(subjects)}
    none: list[tuple[float, ...]] = [(1.0,)] * len(cases)

    def validated(per_class: bool) -> list[tuple[float, ...]]:
        """The temperatures of each case, by the subjects of the other folds."""
        of_fold = []
        for fold in range(folds):
            others = [case for case in cases if folds == 1 or fold_of[case.subject] != fold]
            of_fold.append(_fit(others, per_class))
        return [of_fold[fold_of[case.subject]] for case in cases]

    usual, held_out = _likelihoods(cases, none), validated(per_class=False)
    gained, per_class = _likelihoods(cases, held_out) - usual, False
    before, after = (measure_reliability(cases, one) for one in (none, held_out))
    if len(subjects) >= _FEWEST_SUBJECTS:
        other = validated(per_class=True)
        more = _likelihoods(cases, other) - usual - gained
        found = measure_reliability(cases, other)
        helps = more.mean() > more.std(ddof=1) / math.sqrt(len(more))
        if helps and found.ece <= max(before.ece, after.ece):
            per_class, after, gained = True, found, gained + more
    if gained.mean() <= 0 or after.ece > before.ece:
        return FittedCalibration(None, before, before)
    mean = float(usual.mean())
    likelihood = (mean, mean + float(gained.mean()))
    temperatures, ece = _fit(cases, per_class), (before.ece, after.ece)
    fitted = Calibration(temperatures, len(subjects), chose_epoch, likelihood, ece, folds > 1)
    return FittedCalibration(fitted, before, after)


# -------------------------------------------------------------------- internals
def _likelihoods(
    cases: Sequence[CalibrationCase], temperatures: Sequence[tuple[float, ...]]
) -> Floats:
    pairs = zip(cases, temperatures, strict=True)
    return np.array([float(case.likelihood(own)) for case, own in pairs])


def _fit(cases: Sequence[CalibrationCase], per_class: bool) -> tuple[float, ...]:
    """The temperatures at which the cases' labels are most probable, on average over cases."""

    def loss(logarithms: Tensor) -> Tensor:
        return -torch.stack([case.likelihood(logarithms.exp()) for case in cases]).mean()

    found = scipy.optimize.minimize_scalar(
        lambda one: float(loss(torch.tensor([one]))), bounds=_LIMITS, method="bounded",
        options={"xatol": 0.01},
    )  # fmt: skip
    if not per_class:
        return (round(math.exp(found.x), 4),)
    logarithms = torch.full((len(cases[0].probabilities),), float(found.x), requires_grad=True)
    search = torch.optim.LBFGS([logarithms], max_iter=15, line_search_fn="strong_wolfe")

    def step() -> float:
        search.zero_grad()
        value = loss(logarithms)
        value.backward()
        return float(value.detach())

    search.step(step)
    clipped = logarithms.detach().clamp(*_LIMITS).exp()
    return tuple(round(value, 4) for value in clipped.tolist())
