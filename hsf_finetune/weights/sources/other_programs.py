"""Folders and files of other programs that cannot be read: what they are, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.unreadable import NNUNET_V1_FIX, TENSORFLOW_FIX

_CONVERT = (
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch '{folder}' model.pt\n"
    "and then finetuning.pretrained=model.pt"
)
SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors", ".onnx")
"""What files of weights usually end in."""
_DIVIDED = (
    (
        (".metadata", "*.distcp"),
        "a checkpoint that several processes wrote together (FSDP, torch.distributed.checkpoint)",
        _CONVERT,
    ),
    (
        ("zero_to_fp32.py", "*_zero_pp_rank_*", "*model_states.pt"),
        "a checkpoint of DeepSpeed, divided among processes",
        "python '{folder}/zero_to_fp32.py' '{folder}' model.pt\n"
        "and then finetuning.pretrained=model.pt",
    ),
)
_OTHERS = (
    (("plans.pkl", "*.model.pkl", "*.model"), "a model of nnU-Net v1", NNUNET_V1_FIX),
    (
        ("saved_model.pb", "*.pb", "*.ckpt.index", "*.tflite", "*.h5", "*.keras"),
        "a network of TensorFlow or Keras",
        TENSORFLOW_FIX,
    ),
)
"""For each: names of files, any of which tells it; what it is, and what to do."""


def other_program_error(path: Path) -> WeightsError | None:
    """The error for what another program has written and cannot be read; None for the rest."""
    folder = path if path.is_dir() else path.parent
    # Exports often lie beside weights that can be read.
    has_weights = path.is_dir() and any(file.suffix in SUFFIXES for file in path.iterdir())
    for patterns, what, fix in _DIVIDED if has_weights else (*_DIVIDED, *_OTHERS):
        found = sorted(_matching(path, patterns))
        if found:
            return WeightsError(
                f"this is {what}, which cannot be read as it is",
                file=path,
                found=", ".join(found[:6]) + (" ..." if len(found) > 6 else ""),
                fix=fix.format(folder=folder),
            )
    return None


def _matching(path: Path, patterns: Iterable[str]) -> set[str]:
    """Names in a folder, or the name of a file, that fit one of the patterns."""
    if path.is_dir():
        return {file.name for pattern in patterns for file in path.glob(pattern)}
    return {path.name for pattern in patterns if path.match(pattern)}
