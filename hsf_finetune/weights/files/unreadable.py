"""The error for a file that is no readable checkpoint: what it is instead, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from hsf_finetune.system.errors import WeightsError

EXPECTED = "a file of tensors by name (a state dict), as torch.save or safetensors writes it"

NNUNET_V1_FIX = (
    "give the model's folder, or its weights with the pickle beside them: "
    "model_final_checkpoint.model and\nmodel_final_checkpoint.model.pkl"
)
FETCH_AGAIN = "download or copy it again, and compare sizes or checksums"
_GIVE_CHECKPOINT = "give a checkpoint (.ckpt, .pt, .pth, .safetensors)"
TENSORFLOW_FIX = (
    "TensorFlow's networks cannot be trained here: train one of conf/models from the start, or "
    "take\nweights that PyTorch wrote"
)
_LOG_IN = "download it again; log in if need be"
_GRAPH = rb"\n[\s\S]{1,4}\n[\s\S][\w/.-]+\x12[\s\S](placeholder|const)"
_SUFFIXES = {
    ".pb": ("a TensorFlow graph or SavedModel", TENSORFLOW_FIX),
    ".index": ("the index of a TensorFlow checkpoint", TENSORFLOW_FIX),
    ".meta": ("the graph of a TensorFlow checkpoint", TENSORFLOW_FIX),
    ".data-00000-of-00001": ("the numbers of a TensorFlow checkpoint", TENSORFLOW_FIX),
    ".engine": ("a TensorRT engine", "give the checkpoint it was exported from"),
    ".mlmodel": ("a Core ML model", "give the checkpoint it was exported from"),
    ".mat": ("a MATLAB file", _GIVE_CHECKPOINT),
}
"""Kinds of files that their first bytes do not tell."""
_FORMATS = (
    (rb"\s*<(!doctype|html|\?xml)", "a web page, perhaps an error message", _LOG_IN),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes", TENSORFLOW_FIX),
    (rb"[\s\S]{4}TFL3", "a TensorFlow Lite model", TENSORFLOW_FIX),
    (rb"\x08\x01\x12", "a TensorFlow SavedModel", TENSORFLOW_FIX),
    (_GRAPH, "a TensorFlow graph", TENSORFLOW_FIX),
    (rb"\x1f\x8b", "a file compressed by gzip", "unpack it first (gunzip, tar)"),
    (rb"BZh|\xfd7zXZ|7z\xbc\xaf", "a compressed file", "unpack it first"),
    (rb"Rar!", "a RAR archive", "unpack it first"),
    (rb"\x93NUMPY", "a NumPy array", _GIVE_CHECKPOINT),
    (rb"\x08[\x00-\x10]\x12", "an ONNX model", "give it a name that ends in .onnx"),
    (rb"[\s\S]{257}ustar", "a tar archive", "unpack it, and give the checkpoint in it"),
    (rb"\s*[{\[]\s*[\"\d{}\[\]]", "a JSON file", _GIVE_CHECKPOINT),
)
"""First bytes, what the file is, and what to do."""


def unreadable_error(path: Path, reason: Exception | str, found: str = "") -> WeightsError:
    """The error to raise for a file that is no checkpoint, or a damaged one.

    Args:
        path: the file.
        reason: the message of the library that should read it.
        found: what it is; empty to guess it from its first bytes.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as refused:
        return WeightsError("the checkpoint cannot be opened", file=path, found=refused.strerror)
    kind, fix = _guess_kind(start, path.stat().st_size, path.suffix)
    text = str(reason).strip() or type(reason).__name__
    return WeightsError(
        "the file is not a readable checkpoint",
        file=path,
        found=f"{found or kind} ({text.splitlines()[0][:160]})",
        expected=EXPECTED,
        fix=FETCH_AGAIN if found else fix,
    )


def plain_pickle_error(path: Path, content: object) -> WeightsError:
    """The error for a pickle that torch.save did not write."""
    keys = content if isinstance(content, dict) else ()
    if "plans" in keys or "plans_per_stage" in keys:
        return WeightsError(
            "these are plans of nnU-Net v1, without weights",
            file=path,
            found="a pickle of " + ", ".join(map(str, list(keys)[:6])),
            expected=EXPECTED,
            fix=NNUNET_V1_FIX,
        )
    return WeightsError(
        "the file is a plain pickle, which torch.save did not write",
        file=path,
        found=f"a {type(content).__name__}"
        + (" of " + ", ".join(map(str, list(keys)[:6])) if keys else ""),
        expected=EXPECTED,
        fix="save its weights alone, where it was trained: "
        "torch.save(model.state_dict(), 'weights.pt')",
    )


def _guess_kind(start: bytes, size: int, suffix: str) -> tuple[str, str]:
    """What a file seems to be, from its first bytes or its suffix, and what to do about it."""
    if not start:
        return "an empty file", FETCH_AGAIN
    if start.startswith(b"PK"):
        return f"a damaged or incomplete archive of {size:,} bytes", FETCH_AGAIN
    for pattern, kind, fix in _FORMATS:
        if re.match(pattern, start, re.IGNORECASE):
            return kind, fix
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return "a text file", _GIVE_CHECKPOINT
    return f"{size:,} bytes that torch cannot read", FETCH_AGAIN
