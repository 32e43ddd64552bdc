"""Scoring a model on cases whose truth is known, and two models against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.cases import Case
from hsf_finetune.data.preprocessing import label_rows
from hsf_finetune.data.volumes import read_volume
from hsf_finetune.evaluation.scores import score_case
from hsf_finetune.evaluation.tables import ScoreRow
from hsf_finetune.inference.predictor import Predictor


def score_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    tolerance_mm: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ScoreRow]:
    """Predicts every case on its own grid and scores it against its label.

    Args:
        predictor: the model.
        cases: annotated scans.
        tolerance_mm: of the normalised surface Dice.
        progress: called with (done, all).

    Returns:
        One row per case and class, in order.
    """
    rows = []
    for done, case in enumerate(cases, start=1):
        predicted, scan = predictor.predict_classes(case.images)
        truth = truth_classes(case)
        classes = {name: case.protocol.space.index(name) for name in annotated_classes(case)}
        scores = score_case(
            predicted.astype(np.int64), truth, classes, scan.spacing_mm, tolerance_mm
        )
        rows += [ScoreRow(case.name, case.subject, score) for score in scores]
        if progress:
            progress(done, len(cases))
    return rows


def truth_classes(case: Case) -> npt.NDArray[np.int64]:
    """The class index of each voxel of a case's label, (X, Y, Z)."""
    class_of_row = case.protocol.matrix.argmax(axis=1)
    rows = label_rows(read_volume(case.label), case.protocol)
    return np.asarray(class_of_row[rows], dtype=np.int64)


def annotated_classes(case: Case) -> list[str]:
    """Foreground classes that the case's protocol knows, in the model's order."""
    known = {name for _, names in case.protocol.sets for name in names}
    return [name for name in case.protocol.space.foreground if name in known]
