"""The words in the names of files, and the meaning of some of them."""

from __future__ import annotations

import re

_SEPARATOR = re.compile(r"[_\-.\s]+")
_LABEL = re.compile(
    r"(d|lf|man|auto)?seg(mentations?|s)?(tr|ts)?|labels?(tr|ts)?|lbls?|masks?|gt|truth"
    r"|ground_?truth|annot(ation)?s?|manual|delineations?|rois?|contours?|outlines?",
    re.IGNORECASE,
)
"""Words in the name of a label that its image's name lacks."""
_IMAGE = re.compile(
    r"im|img|imgs|images?(tr|ts)?|scans?|mri?|raw|orig(inal)?|intensity", re.IGNORECASE
)
"""Words in the name of an image that its label's name lacks."""
_SIDE = re.compile(r"l|r|lh|rh|left|right", re.IGNORECASE)
_CONTRAST = re.compile(
    r"t1|t2|t1w|t2w|t1ce|t1c|t1gd|t2star|t2starw|flair|pd|pdw|mprage|space|tse|dwi|adc|swi|ct|pet"
    r"|inv\d?|unit1|averaged?|mean",
    re.IGNORECASE,
)


def words(name: str) -> tuple[str, ...]:
    """The words of a name, which are separated by `_`, `-`, `.` and blanks."""
    return tuple(word for word in _SEPARATOR.split(name) if word)


def names_label(name: str) -> bool:
    """Whether a name contains a word for a label."""
    return any(_LABEL.fullmatch(word) for word in words(name))


def without_kind(name: str) -> tuple[str, ...]:
    """The words of a name, without those for images and labels."""
    return tuple(w for w in words(name) if not (_LABEL.fullmatch(w) or _IMAGE.fullmatch(w)))


def contrast(name: str) -> str:
    """The contrast in a name, such as `T2w`; empty if there is none."""
    return "_".join(word for word in words(name) if _CONTRAST.fullmatch(word))


def series_name(parts: tuple[str, ...]) -> str:
    """Side and contrast from the words of folders and name, else `images`."""
    every = [word.lower() for part in parts for word in words(part)]
    sides = [word for word in every if _SIDE.fullmatch(word)]
    contrasts = [word for word in every if _CONTRAST.fullmatch(word)]
    return "_".join(dict.fromkeys(sides + contrasts)) or "images"
