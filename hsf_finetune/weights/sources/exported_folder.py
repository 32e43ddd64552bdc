"""The folder that `hsf-finetune export` wrote: the weights in it, and the model card beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.weights.files.checkpoint import Checkpoint

CARD, CHECKSUMS = "model_card.json", "SHA256SUMS"
_WEIGHTS = {
    "checkpoint": "model.ckpt",
    "hsf": "models/*.onnx",
    "onnx": "*.onnx",
    "nnunet": "**/nnUNetTrainer__*__*",  # below the folder of the dataset, or in that
}
"""`--to NAME` -> what holds its weights, below the folder; a bundle is the folder itself."""
_TEXTS = ("README.md", "LICENSE")
"""Files that may change without changing the model."""


def weights_of_export(path: Path) -> Path:
    """The file or folder of weights in an export; any other path as it is."""
    card = _read_card(path)
    pattern = _WEIGHTS.get(str(card.get("export")))
    return next(path.glob(pattern), path) if pattern else path


def with_exported_card(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The checkpoint with the card of its export, whose other files say less.

    nnU-Net has no words for all that the card says, such as margins that are left out. Files
    that were changed since have to speak for themselves.
    """
    folder = next((one for one in (path, *path.parents[:3]) if (one / CARD).is_file()), path)
    card = _read_card(folder)
    if not card or not _is_unchanged(folder):
        return checkpoint
    return with_card(checkpoint, card)


def with_card(checkpoint: Checkpoint, card: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint with what a model card says of it.

    Raises:
        KeyError, TypeError, ValueError: the card cannot be read.
    """
    preprocessing = Preprocessing.from_card(card)
    return replace(
        checkpoint,
        classes=tuple(card["classes"]),
        models=card["models"],
        in_channels=card["in_channels"],
        channel_names=preprocessing.channel_names,
        preprocessing=preprocessing,
        origin={**checkpoint.origin, "label_values": card["label_values"]},
    )


# -------------------------------------------------------------------- internals
def _read_card(folder: Path) -> Mapping[str, Any]:
    """The card of an export; empty for any other folder."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and "export" in card else {}


def _is_unchanged(folder: Path) -> bool:
    """Whether every file is still the one that was exported, texts excepted."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        files = [line.split("  ", 1) for line in lines]
        return all(
            Checksum.of_file(folder / name).digits == digits
            for digits, name in files
            if name not in _TEXTS
        )
    except (OSError, ValueError):
        return False
