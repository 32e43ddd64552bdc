"""What a model learns about itself from validation cases after its training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.evaluation.fit_calibration import NOT_CALIBRATED, fit_calibration
from hsf_finetune.evaluation.fit_postprocessing import LabelledCase, fit_postprocessing
from hsf_finetune.evaluation.reliability import CalibrationCase, write_reliability
from hsf_finetune.inference.calibration import Calibration
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.postprocessing import Postprocessing
from hsf_finetune.inference.rewrite_card import rewrite_card
from hsf_finetune.system.console import count_of, say
from hsf_finetune.system.run_folder import BEST, CALIBRATION, RunFolder

FEWEST_SUBJECTS = 8
"""Of fewer, none having a second piece or a hole says little about others, who would lose theirs."""


@dataclass
class ValidationLessons:
    """Collects what the model finds in validation cases, and fits what can be learned from it.

    Args:
        settings: of the run: `calibration`, `postprocessing`, and whether cases chose the epoch.
        count: of the cases.
    """

    settings: Settings
    count: int
    voxels: list[CalibrationCase] = field(default_factory=list)
    segmentations: list[LabelledCase] = field(default_factory=list)
    subjects: set[str] = field(default_factory=set)

    def take(self, case: Case, scan: Volume, probabilities: Tensor, rows: Tensor) -> None:
        """Keeps what is needed of one case.

        Args:
            case: the case.
            scan: its first channel.
            probabilities: (classes, X, Y, Z), without calibration and post-processing.
            rows: label rows, (X, Y, Z).
        """
        matrix = case.protocol.matrix
        self.subjects.add(case.subject)
        if self.settings.calibration == "on":
            allowed = torch.from_numpy(matrix)
            how = (probabilities, rows, allowed, self.count)
            if drawn := CalibrationCase.draw(case.subject, *how):
                self.voxels.append(drawn)
        if self.settings.postprocessing == "on":
            found = probabilities.argmax(dim=0).to(torch.uint8).numpy()
            voxel_mm3 = math.prod(scan.spacing_mm)
            self.segmentations.append(LabelledCase.cut(found, rows.numpy(), matrix, voxel_mm3))

    def fit_postprocessing(self, names: Sequence[str]) -> Postprocessing:
        """The steps that help, for classes of these names; none of fewer than `FEWEST_SUBJECTS`."""
        if len(self.subjects) < FEWEST_SUBJECTS:
            return Postprocessing()
        return fit_postprocessing(self.segmentations, names)

    def learn(self, run: RunFolder, card: ModelCard) -> ModelCard:
        """Fits calibration and post-processing, says so, and writes them into `best.ckpt`.

        Returns:
            The card with both.
        """
        chose_epoch = self.settings.finetuning.budget != "fixed"
        fitted = fit_calibration(self.voxels, chose_epoch)
        if fitted:
            write_reliability(run.file(CALIBRATION), fitted.reliabilities())
        learned = replace(
            card,
            calibration=fitted.calibration if fitted else None,
            postprocessing=self.fit_postprocessing(card.classes),
        )
        if fitted and not fitted.calibration:
            say(f"calibration: none; {NOT_CALIBRATED}")
        for line in describe_lessons(learned):
            say(line)
        if learned != card:
            rewrite_card(run.checkpoints / BEST, learned)
        return learned


def describe_lessons(card: ModelCard) -> list[str]:
    """Calibration and post-processing in sentences."""
    lines = []
    if card.calibration:
        chose = "these cases had chosen the epoch, too" if card.calibration.chose_epoch else ""
        on = count_of(card.calibration.subjects, "validation subject")
        reason = f" of {on}" + (f" ({chose})" if chose else ", which chose no epoch")
        lines.append(f"calibration: {card.calibration.line()}; on cases{reason}")
    lines += [f"post-processing: {line}" for line in card.postprocessing.lines()]
    return lines


def lessons_to_dict(card: ModelCard) -> dict[str, Any]:
    """Calibration and post-processing as plain types, for result.json."""
    calibration = card.calibration.to_dict() if card.calibration else None
    return {"calibration": calibration, "postprocessing": card.postprocessing.to_list()}


def share_lessons(cards: Sequence[ModelCard], card: ModelCard) -> ModelCard:
    """The card of the model on all cases, with what its folds have learned.

    Temperatures are the geometric mean of those of the folds; of post-processing it has the steps
    that every fold has.

    Args:
        cards: of the folds.
        card: of the model on all cases, which has no case of its own to learn from.
    """
    known = [one.calibration for one in cards if one.calibration]
    calibration = Calibration.mean(known) if known and len(known) == len(cards) else None
    steps = Postprocessing.shared([one.postprocessing for one in cards])
    return replace(card, calibration=calibration, postprocessing=steps)
