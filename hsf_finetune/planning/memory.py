"""How much memory there is, and how much this process has had."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import torch

_USABLE_SHARE = 0.85
"""Share of the free memory that a run may be planned to take."""
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def free_host_bytes(own: int) -> int:
    """Memory that this process may take: what is free and what it has, or its limit.

    Args:
        own: bytes that it has.
    """
    free = own + psutil.virtual_memory().available
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (int((Path("/sys/fs/cgroup") / n).read_text()) for n in (limit, used))
        except (OSError, ValueError):
            continue
        free = min(free, own + max(most - now, 0))
    return free


def free_device_bytes() -> int:
    """Memory of the GPU that this process may take."""
    free, _ = torch.cuda.mem_get_info()
    return int(free) + torch.cuda.memory_reserved()


def fits_into(needed: float, free: int | None) -> bool:
    """Whether no more is needed than may be planned for; always where what is free is unknown."""
    return free is None or needed <= _USABLE_SHARE * free


def reset_peaks(device: torch.device) -> None:
    """Starts the peaks of `peak_host_bytes` and `peak_device_bytes` again, where that is possible.

    Linux can do so for the host (proc(5), clear_refs).
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_host_bytes() -> int:
    """Most memory that this process has had."""
    if _STATUS.exists():
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return 1024 * int(found.group(1)) if found else psutil.Process().memory_info().rss
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_device_bytes(device: torch.device) -> int:
    """Most memory that was reserved on a GPU; 0 on anything else."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def gigabytes(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.2f} GB"
