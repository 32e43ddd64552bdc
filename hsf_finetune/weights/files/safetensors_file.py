"""Reads .safetensors files, which hold numbers and texts and nothing that could run."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.unreadable import FETCH_AGAIN, unreadable_error

LARGEST_HEADER_BYTES = 100_000_000
"""The format's own limit (github.com/huggingface/safetensors, "Format")."""


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as the format does: the header's length, then JSON.

    The suffix does not matter.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] != b"{":
        return False
    (length,) = struct.unpack("<Q", start[:8])
    if length <= LARGEST_HEADER_BYTES:
        return True
    # An impossible length: a damaged file, unless it begins as other formats do.
    return start[7] in (0, 0x7F, 0xFF) and not start.startswith((b"PK\x03\x04", b"\x80"))


def load_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file, in memory of their own, and its metadata.

    Raises:
        WeightsError: the header is too long, or what it says contradicts the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, LARGEST_HEADER_BYTES):
        raise WeightsError(
            "the file claims more than it holds",
            file=path,
            found=f"a header of {length:,} bytes in a file of {size:,}",
            expected="a safetensors file",
            fix=FETCH_AGAIN,
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise unreadable_error(path, error, "a damaged or incomplete safetensors file") from error
