"""Left and right in the names of classes and files."""

from __future__ import annotations

import re
from typing import Literal

_SIDE = re.compile(r"left|right|(?<![^\W_])(l|r|lh|rh)(?![^\W_])", re.IGNORECASE)
"""The words anywhere in a name, the letters only by themselves."""
_OTHER_WORD = {"left": "right", "right": "left", "l": "r", "r": "l", "lh": "rh", "rh": "lh"}


def other_side(name: str) -> str | None:
    """A class name with left and right exchanged; None where it names no side."""

    def exchange(found: re.Match[str]) -> str:
        word = found.group()
        other = _OTHER_WORD[word.lower()]
        if word.isupper():
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    renamed, count = _SIDE.subn(exchange, name)
    return renamed if count else None


def side_of(name: str) -> Literal["left", "right"] | None:
    """The side that the name of a class or file contains; None where it has neither or both."""
    sides = {found.group()[0].lower() for found in _SIDE.finditer(name)}
    if len(sides) != 1:
        return None
    return "left" if sides == {"l"} else "right"
