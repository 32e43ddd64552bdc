"""What is known of whether weights predict as their own program does: it is kept for later runs."""

from __future__ import annotations

import json
from pathlib import Path

from hsf_finetune.system.atomic_files import cache_folder, write_json
from hsf_finetune.weights.files.checkpoint import Checkpoint

NNUNET = "nnU-Net v2"
_HOW = "hsf-finetune check finetuning.pretrained=... compares them where nnunetv2 is installed"
_NOT_COMPARED = {
    NNUNET: f"predictions were not compared with nnU-Net's own: {_HOW}",
    "nnU-Net v1": "predictions were not compared with nnU-Net v1's own, which is not installed",
    "MONAI bundle": "predictions were not compared with the bundle's own, which would run its code "
    "(python -m monai.bundle run)",
}
"""Format -> what to say where nothing is known."""


def proof_text(checkpoint: Checkpoint) -> str:
    """What is known of the weights' predictions, in a sentence; empty where there are none."""
    try:
        return str(json.loads(_file(checkpoint).read_text(encoding="utf-8"))["proof"])
    except (OSError, ValueError, KeyError, TypeError):
        return _NOT_COMPARED.get(str(checkpoint.origin.get("format")), "")


def is_compared(checkpoint: Checkpoint) -> bool:
    """Whether the comparison has been made for these weights."""
    return _file(checkpoint).is_file()


def keep_proof(checkpoint: Checkpoint, text: str) -> None:
    """Keeps the result of a comparison.

    Raises:
        OutputError: it cannot be written.
    """
    write_json(_file(checkpoint), {"proof": text})


# -------------------------------------------------------------------- internals
def _file(checkpoint: Checkpoint) -> Path:
    return cache_folder() / "proofs" / f"{checkpoint.digest}.json"
