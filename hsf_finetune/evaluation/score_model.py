"""Scoring a model on cases whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.check_volumes import to_label_rows
from hsf_finetune.data.volumes.read_volume import read_volume
from hsf_finetune.evaluation.metrics import score_mask
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.training.validation_dice import set_masks


def score_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    tolerance_mm: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ScoreRow]:
    """Predicts every case on its own grid and scores it in its own protocol.

    A set of classes is scored as one, by the sum of its classes' probabilities; what a
    protocol does not draw is not scored. `set_masks` defines what is compared.

    Args:
        predictor: the model.
        cases: annotated scans.
        tolerance_mm: of the normalised surface Dice.
        progress: called with (done, all).

    Returns:
        One row per case and annotated class or set, under the dataset's name for it.
    """
    found = []
    for done, case in enumerate(cases, start=1):
        probabilities, scan = predictor.predict_probabilities(case.images)
        rows = torch.from_numpy(to_label_rows(read_volume(case.label), case.protocol))
        allowed = torch.from_numpy(case.protocol.matrix)
        scores = {
            row: score_mask(
                case.protocol.row_names[row],
                predicted.numpy(),
                true.numpy(),
                scan.spacing_mm,
                tolerance_mm,
            )
            for row, predicted, true in set_masks(probabilities, rows, allowed)
        }
        # In the model's order of classes, whatever the label values.
        order = sorted(scores, key=lambda row: allowed[row].nonzero().flatten().tolist())
        found += [ScoreRow(case.name, case.subject, scores[row], case.dataset) for row in order]
        if progress:
            progress(done, len(cases))
    return found
