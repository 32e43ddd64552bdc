"""The stack that a thread's signal handlers run on, where libraries leave another one behind."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Gives the thread back its signal stack, on Linux.

    Each model that OpenVINO 2026 compiles sets a signal stack of its own (for AMX), and on its end
    the one that it found. Of two models the second would set that of the first again, freed by
    then, and the next signal, such as the end of a loader's worker, would crash the process.
    """
    if sys.platform != "linux":
        yield
        return
    libc, found = ctypes.CDLL(None, use_errno=True), _Stack()
    libc.sigaltstack(None, ctypes.byref(found))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(found), None)
