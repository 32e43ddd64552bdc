"""The error for a path that does not exist: what is in its place, and what may be meant."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TypeVar

from hsf_finetune.system.errors import UserError

_Error = TypeVar("_Error", bound=UserError)
_MOST_NAMES = 12


def no_such_path(error: type[_Error], path: Path, expected: str | None = None) -> _Error:
    """The error for a path that does not exist.

    Args:
        error: its kind.
        path: the file or folder.
        expected: what it should be.
    """
    parent, fix = path.absolute().parent, None
    if parent.is_dir():
        found = f"in {parent}: {list_names(parent)}"
        if close := difflib.get_close_matches(path.name, [one.name for one in parent.iterdir()], 1):
            fix = f"did you mean {path.with_name(close[0])}?"
    else:
        found = f"no such folder either: {parent}"
    return error("no such file or folder", file=path, found=found, expected=expected, fix=fix)


def list_names(folder: Path) -> str:
    """The names of what a folder holds, those that are not hidden first; some of many."""
    paths = sorted(folder.iterdir(), key=lambda path: (path.name.startswith("."), path.name))
    names = [path.name + ("/" if path.is_dir() else "") for path in paths]
    shown = ", ".join(names[:_MOST_NAMES]) or "nothing"
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
