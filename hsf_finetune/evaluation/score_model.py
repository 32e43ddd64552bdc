"""Scoring a model on cases whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.check_volumes import on_grid_of, to_label_rows
from hsf_finetune.data.volumes.read_volume import Volume, read_volume
from hsf_finetune.evaluation.head_check import (
    ClassGroup,
    group_truth,
    has_own_value,
    predict_groups,
)
from hsf_finetune.evaluation.metrics import score_mask
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.training.validation_dice import set_masks

Progress = Callable[[int, int], None]
"""Called with (cases done, all)."""
Keep = Callable[[Case, Volume, Tensor, Tensor], None]
"""Called with a case, its first channel, probabilities (C, X, Y, Z), and label rows (X, Y, Z)."""


def score_cases(
    predictor: ScanModel,
    cases: Sequence[Case],
    tolerance_mm: float | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> list[ScoreRow]:
    """Predicts every case on its own grid and scores it in its own protocol.

    A set of classes is scored as one, by the sum of its classes' probabilities; what a
    protocol does not draw is not scored. `set_masks` defines what is compared.

    Args:
        predictor: the model.
        cases: annotated scans.
        tolerance_mm: of the normalised surface Dice; None is `default_tolerance_mm`.
        progress: called after each case.
        keep: called with each case and what the model finds in it.

    Returns:
        One row per case and annotated class or set, under the dataset's name for it.
    """
    found = []
    for done, case in enumerate(cases, start=1):
        probabilities, scan = predictor.predict_probabilities(case.images)
        label = on_grid_of(scan, read_volume(case.label))
        rows = torch.from_numpy(to_label_rows(label, case.protocol))
        allowed = torch.from_numpy(case.protocol.matrix)
        if keep:
            keep(case, scan, probabilities, rows)
        scores = {}
        for row, predicted, true in set_masks(probabilities, rows, allowed):
            name, masks = case.protocol.row_names[row], (predicted.numpy(), true.numpy())
            scores[row] = score_mask(name, *masks, scan.spacing_mm, tolerance_mm)
        # In the model's order of classes, whatever the label values.
        order = sorted(scores, key=lambda row: allowed[row].nonzero().flatten().tolist())
        found += [ScoreRow(case.name, case.subject, scores[row], case.dataset) for row in order]
        if progress:
            progress(done, len(cases))
    return found


def score_groups(
    predictor: ScanModel,
    cases: Sequence[Case],
    groups: Sequence[ClassGroup],
    head: Literal["source", "target"],
    progress: Progress | None = None,
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
        progress: called after each case.

    Returns:
        One row per case and class that both heads have.
    """
    channels = [getattr(group, head) for group in groups]
    found = []
    for done, case in enumerate(cases, start=1):
        predicted, scan = predict_groups(predictor, case, channels)
        truth = group_truth(case, [group.source for group in groups])
        predicted = np.where(truth >= 0, predicted, -1)
        for place, group in enumerate(groups):
            if place and group.source and group.target and has_own_value(case, group.source):
                masks = (predicted == place, truth == place)
                score = score_mask(group.name, *masks, scan.spacing_mm)
                found.append(ScoreRow(case.name, case.subject, score, case.dataset))
        if progress:
            progress(done, len(cases))
    return found
