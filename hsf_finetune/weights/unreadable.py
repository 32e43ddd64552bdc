"""Why a file is no readable checkpoint, in words that help."""

from __future__ import annotations

import re
from pathlib import Path

from hsf_finetune.errors import WeightsError

EXPECTED = "a file written by torch.save that holds tensors by name (a state dict)"


def unreadable(path: Path, error: Exception) -> WeightsError:
    """The error to raise for a file that `torch.load(weights_only=True)` refused.

    Args:
        path: the file.
        error: what torch said.
    """
    text = str(error)
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as refused:
        return WeightsError("the checkpoint cannot be opened", file=path, found=refused.strerror)
    names = sorted(set(re.findall(r"GLOBAL ([\w.]+)", text)))
    if names:
        return WeightsError(
            "the file needs code to be read, and code from a checkpoint is never run",
            file=path,
            found="a pickle that calls for " + ", ".join(names),
            expected="tensors, numbers, texts, lists and dictionaries only",
            fix="where you trust it, save its weights alone: "
            "torch.save(model.state_dict(), 'weights.pt')",
        )
    found, fix = _sniff(start, path.stat().st_size)
    summary = text.strip().splitlines()[0][:160] if text.strip() else type(error).__name__
    return WeightsError(
        "the file is not a readable checkpoint",
        file=path,
        found=f"{found} ({summary})",
        expected=EXPECTED,
        fix=fix,
    )


def _sniff(start: bytes, size: int) -> tuple[str, str]:
    """What a file seems to be, from its first bytes, and what to do about it."""
    again = "download or copy it again, and compare sizes or checksums"
    if not start:
        return "an empty file", again
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        return "a web page, perhaps an error message", "download it again; log in if need be"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "git lfs pull"
    if start.startswith(b"PK"):
        return f"a damaged or incomplete archive of {size:,} bytes", again
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return "a text file", "give a checkpoint (.ckpt, .pt, .pth)"
    return f"{size:,} bytes that torch cannot read", again
