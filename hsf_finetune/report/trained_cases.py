"""What cannot be said of new scans, since cases that are scored trained the model as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.splits import OF_SOURCE, SOURCE_TRAINED, note_trained
from hsf_finetune.inference.model_card import ModelCard


def also_trained(split: Mapping[str, Any], side: str) -> str:
    """How many of the cases of a side trained the model too, or the pretrained one, as the end of a phrase; empty for none.

    Args:
        split: from splits.json; with folds, each case is scored by the one that it did not train.
        side: `validation` or `test`.
    """
    cases = {*split[side]}
    both = {*split["train"]} & cases
    if split.get("held_out", True) or (side == "test" and not both):
        known = cases & {*split.get(SOURCE_TRAINED, ())}
        return note_trained(len(known), len(cases), OF_SOURCE)
    return note_trained(len(both) or len(cases), len(cases))


def explain_no_lessons(settings: Settings, card: ModelCard) -> Iterator[str]:
    """Why a model whose validation cases trained it knows less of itself than was asked for.

    Args:
        settings: of the run.
        card: of its model, which may have been given what earlier models learnt.
    """
    uncalibrated = card.calibration is None
    wanted = {
        "calibration": settings.calibration == "on" and uncalibrated,
        # A model with a calibration may have none because none helped.
        "post-processing": settings.postprocessing == "on"
        and uncalibrated
        and not card.postprocessing,
        "expected quality": settings.quality == "on" and card.quality is None,
    }
    if lacking := [name for name, is_lacking in wanted.items() if is_lacking]:
        yield (
            f"without {', '.join(lacking)}: validation cases trained too, so that no case is left "
            "to learn it from"
        )
