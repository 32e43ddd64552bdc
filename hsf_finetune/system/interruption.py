"""Signals that end this process, also where Python discards what their handlers raise.

A handler runs wherever the main thread is. In a callback of a weak reference, of which PyTorch
has many, what it raises is printed and forgotten, and the work goes on. So it is kept as well,
and loops look whether they have been asked to end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_asked: KeyboardInterrupt | SystemExit | None = None
_heeded = _between_steps = False


def end_with(stop: KeyboardInterrupt | SystemExit) -> NoReturn:
    """Raises what ends the process; `end_if_asked` raises it again where it was discarded."""
    global _asked
    _asked = stop
    raise stop


def end_if_asked() -> None:
    """Ends the work of a loop if a signal has asked for it.

    Raises:
        KeyboardInterrupt, SystemExit: what the signal stands for.
    """
    if _asked is not None:
        raise _asked


@contextmanager
def heed_interrupts(*, between_steps: bool = False) -> Iterator[None]:
    """Ctrl+C ends the block, at the latest when a loop in it calls `end_if_asked`.

    A program that has a handler of its own, or ignores the signal, keeps it; so do threads.

    Args:
        between_steps: the first Ctrl+C raises nothing before a loop calls `end_if_asked`, so that
            no file is half-written; a second one ends the block at once.
    """
    global _asked, _heeded, _between_steps
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outermost, before = not _heeded, _between_steps
    handler = signal.getsignal(signal.SIGINT)
    replaced = handler is signal.default_int_handler
    try:
        _heeded, _between_steps = True, between_steps
        if replaced:
            signal.signal(signal.SIGINT, _interrupt)
        yield
    finally:
        _heeded, _between_steps = not outermost, before
        if replaced:
            signal.signal(signal.SIGINT, handler)
        if outermost:
            _asked = None


def _interrupt(*_: object) -> None:
    global _asked
    if _between_steps and _asked is None:
        _asked = KeyboardInterrupt()
    else:
        end_with(KeyboardInterrupt())
