"""Classes that came out of the same class of the source, so that its model draws them alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsf_finetune.evaluation.run_parts import RunParts
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.system.read_json import read_json

Alike = Mapping[str, Sequence[str]]
"""Class, or classes, of the source -> the classes that came out of it, of which there are several."""


def classes_alike(weights: Mapping[str, Any]) -> Alike:
    """Which classes have equal outputs before training, so that only ties tell them apart.

    Classes that are new, and come out of the background, are not among them: the pretrained model
    does not draw them at all.

    Args:
        weights: from transfer.json.
    """
    found: dict[str, list[str]] = {}
    for rule in weights.get("channels", []):
        if rule["sources"] not in ([], [BACKGROUND]):
            found.setdefault(" and ".join(rule["sources"]), []).append(rule["target"])
    return {source: classes for source, classes in found.items() if len(classes) > 1}


def read_alike(run: Path) -> Alike:
    """Those of a finished run, or of the first fold of one; none where it began with random weights.

    Raises:
        DataError: its transfer.json is damaged.
    """
    file = RunParts(run).started / "transfer.json"
    return classes_alike(read_json(file, {})) if file.exists() else {}


def explain_alike(alike: Alike) -> Iterator[str]:
    """What the scores of the pretrained model mean for such classes, a sentence for each source."""
    for source, classes in alike.items():
        names = " and ".join(classes)
        yield (
            f"{names} came out of {source} of the source, so that the pretrained model gives them "
            "equal probabilities and cannot tell them apart: its Dice of them and its change, "
            "and with them those of the mean, are no measure of what fine-tuning gained."
        )
