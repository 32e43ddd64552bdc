"""The error for a file that is no readable checkpoint: what it is instead, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from hsf_finetune.system.errors import WeightsError

EXPECTED = "a file of tensors by name (a state dict), as torch.save or safetensors writes it"

FETCH_AGAIN = "download or copy it again, and compare sizes or checksums"
_GIVE_CHECKPOINT = "give a checkpoint (.ckpt, .pt, .pth, .safetensors)"
_FORMATS = (
    (
        rb"\s*<(!doctype|html|\?xml)",
        "a web page, perhaps an error message",
        "download it again; log in if need be",
    ),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes", _GIVE_CHECKPOINT),
    (rb"\x1f\x8b", "a file compressed by gzip", "unpack it first (gunzip, tar)"),
    (rb"BZh|\xfd7zXZ|7z\xbc\xaf", "a compressed file", "unpack it first"),
    (rb"Rar!", "a RAR archive", "unpack it first"),
    (rb"\x93NUMPY", "a NumPy array", _GIVE_CHECKPOINT),
    (rb"\x08[\x00-\x10]\x12", "an ONNX model", "give the checkpoint it was exported from"),
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
    kind, fix = _guess_kind(start, path.stat().st_size)
    text = str(reason).strip() or type(reason).__name__
    return WeightsError(
        "the file is not a readable checkpoint",
        file=path,
        found=f"{found or kind} ({text.splitlines()[0][:160]})",
        expected=EXPECTED,
        fix=FETCH_AGAIN if found else fix,
    )


def _guess_kind(start: bytes, size: int) -> tuple[str, str]:
    """What a file seems to be, from its first bytes, and what to do about it."""
    if not start:
        return "an empty file", FETCH_AGAIN
    if start.startswith(b"PK"):
        return f"a damaged or incomplete archive of {size:,} bytes", FETCH_AGAIN
    for pattern, kind, fix in _FORMATS:
        if re.match(pattern, start, re.IGNORECASE):
            return kind, fix
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return "a text file", _GIVE_CHECKPOINT
    return f"{size:,} bytes that torch cannot read", FETCH_AGAIN
