"""Scores of a model on the classes of its source, with the source's head or the new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.evaluation.head_check import (
    ClassGroup,
    group_truth,
    has_own_value,
    predict_groups,
)
from hsf_finetune.evaluation.metrics import score_mask
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.inference.predictor import Predictor


def score_groups(
    predictor: Predictor,
    cases: Sequence[Case],
    groups: Sequence[ClassGroup],
    head: Literal["source", "target"],
    tolerance_mm: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ScoreRow]:
    """Scores one of two heads on cases of the source's task, class by class of what they share.

    Classes that one head tells apart and the other does not are taken together, in the truth
    and in the prediction (their probabilities summed), so that both heads are measured by the
    same question.

    Args:
        predictor: the network with the head.
        cases: annotated in the source's classes.
        groups: from `group_classes`, background first.
        head: whether it is the source's head (`source`) or the new one (`target`).
        tolerance_mm: of the normalised surface Dice.
        progress: called with (done, all).

    Returns:
        One row per case and class that both heads have.
    """
    channels = [getattr(group, head) for group in groups]
    found = []
    for done, case in enumerate(cases, start=1):
        predicted, scan = predict_groups(predictor, case, channels)
        truth = group_truth(case, [group.source for group in groups])
        predicted = np.where(truth >= 0, predicted, -1)
        found += [
            ScoreRow(
                case.name,
                case.subject,
                score_mask(
                    group.name, predicted == place, truth == place, scan.spacing_mm, tolerance_mm
                ),
                case.dataset,
            )
            for place, group in enumerate(groups)
            if place and group.source and group.target and has_own_value(case, group.source)
        ]
        if progress:
            progress(done, len(cases))
    return found
