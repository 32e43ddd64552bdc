"""A quick start: less is imported, and nothing looks for garbage meanwhile."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OF_MONAI = (
    "ignite", "jsonschema", "matplotlib", "pandas", "pydicom", "scipy.signal", "scipy.stats",
    "skimage", "tensorboard",
)  # fmt: skip
"""What MONAI imports with itself where it is installed; its networks need none of it."""

_modules: dict[str, Any] = sys.modules


@contextmanager
def without_modules(*names: str) -> Iterator[None]:
    """Makes optional modules look as if they were not installed; those imported before stay.

    Args:
        names: what others import where it is installed, and what is not needed here.
    """
    hidden = [name for name in names if name not in _modules]
    _modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            _modules.pop(name, None)


@contextmanager
def without_collection() -> Iterator[None]:
    """Stops the search for garbage, which takes a fifth of the time of imports and finds none.

    Nor is what was imported searched through when the process ends.
    """
    was_on = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_on:
            gc.enable()
