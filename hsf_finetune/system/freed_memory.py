"""Memory that the process has freed: kept for the next step, and returned when it adds up."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_SCANS, _GROWTH = 10, 0.02
"""A process that segments scans may grow by this share of what it had after so many of them; as many
lie between two times that memory is returned."""
_LARGE_VOX = 2**24
"""After a scan of so many voxels, which takes a minute, it is returned before anything is written."""


def keep_freed_memory(largest_bytes: int = 1 << 30) -> bool:
    """Tells glibc to reuse large freed blocks instead of returning them to the kernel.

    The activations of a 3D network are allocated and freed at each step; returning them
    costs page faults, 8 to 20 % of a step of the default UNet on one core. The process
    then keeps its peak memory, which training reaches again anyway.

    Args:
        largest_bytes: blocks of more bytes are returned all the same: a second one of a slightly
            other size would not fit where the first one was.

    Returns:
        Whether the C library accepted it; False where it is not glibc.
    """
    library = _c_library()
    if library is None:
        return False
    limits = (
        (_M_MMAP_THRESHOLD, largest_bytes),
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, 1 << 26),
    )
    return all([library.mallopt(option, value) == 1 for option, value in limits])


@dataclass
class FreedMemory:
    """Returns freed memory to the kernel when it adds up over many scans.

    Scans of other shapes need blocks of other sizes. Those leave gaps between blocks that live
    longer, and a single scan may need far more than all others. To return what is free costs as
    much as half a scan, since the next one gets it again, so it is done as seldom as possible.
    """

    scans: int = 0
    usual_bytes: int = 0

    def note_scan(self, voxels: int) -> None:
        """Looks at the memory of the process after a scan of so many voxels."""
        if voxels >= _LARGE_VOX and (library := _c_library()):
            library.malloc_trim(0)
        self.scans += 1
        held = psutil.Process().memory_info().rss
        allowed = (1 + _GROWTH) * self.usual_bytes
        if self.scans == 1 and held > allowed:
            self.usual_bytes = 0  # scans have become larger, or are the first ones
        elif not self.usual_bytes:
            self.usual_bytes = held if self.scans == _SCANS else 0
        elif self.scans >= _SCANS and held > allowed and (library := _c_library()):
            library.malloc_trim(0)
            self.scans = 0


@cache
def _c_library() -> Any:
    """The C library, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        _ = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return None
    return library
