"""What a run learns, after its training, about the quality of its segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.quality_model import FEWEST_SUBJECTS
from hsf_finetune.inference.rewrite_card import rewrite_card
from hsf_finetune.quality.fit_quality import (
    fit_quality,
    measure_quality,
    read_quality_cases,
    write_quality_cases,
)
from hsf_finetune.system.console import count_of, progress, say
from hsf_finetune.system.run_folder import BEST, RunFolder

_FILE = "quality_cases.csv"


def learn_quality(
    settings: Settings, run: RunFolder, predictor: Predictor, cases: Sequence[Case]
) -> Predictor:
    """Fits what foretells Dice on held-out cases, and writes it into `best.ckpt`.

    Args:
        settings: of the run.
        run: its folder, which gets what was measured.
        predictor: its model.
        cases: that it did not train on.
    """
    if settings.quality == "off":
        return predictor
    with progress("measuring how its segmentations fail, on degraded copies") as tick:
        measured = measure_quality(predictor, cases, settings.seed, tick)
    write_quality_cases(run.file(_FILE), measured)
    card = replace(predictor.card, quality=fit_quality(measured))
    if card.quality:
        rewrite_card(run.checkpoints / BEST, card)
    # The folds of a run are fitted together.
    if card.quality or not isinstance(settings.datasets.fold, int):
        say(describe_quality(card))
    return predictor.with_card(card)


def share_quality(folders: Sequence[Path], card: ModelCard) -> ModelCard:
    """The card of the model on all cases, with what its folds tell, each on its own cases."""
    measured = [one for folder in folders for one in read_quality_cases(folder / _FILE)]
    return replace(card, quality=fit_quality(measured)) if measured else card


def describe_quality(card: ModelCard) -> str:
    """In a sentence, what the card foretells."""
    quality = card.quality
    if quality is None:
        return (
            f"quality: to foretell Dice, {FEWEST_SUBJECTS} validation subjects are needed "
            "(datasets.fold=all gives each subject a turn)"
        )
    return (
        f"quality: predict foretells the Dice of each scan, learnt on "
        f"{count_of(quality.subjects, 'held-out subject')} and degraded copies "
        f"({quality.volumes} volumes); {quality.coverage:.0%} of these reach its lower bound, "
        "fewer of other scans"
    )
