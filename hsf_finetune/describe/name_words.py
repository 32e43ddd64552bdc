"""The words that names of files are made of, and what some of them say."""

from __future__ import annotations

import re

_SEPARATOR = re.compile(r"[_\-.\s]+")
_LABEL = re.compile(
    r"(d|lf|man|auto)?seg(mentations?|s)?(tr|ts)?|labels?(tr|ts)?|lbls?|masks?|gt|truth"
    r"|ground_?truth|annot(ation)?s?|manual|delineations?|rois?|contours?|outlines?",
    re.IGNORECASE,
)
"""Words that a label's name has beyond its image's."""
_IMAGE = re.compile(
    r"im|img|imgs|images?(tr|ts)?|scans?|mri?|raw|orig(inal)?|intensity", re.IGNORECASE
)
"""Words that an image's name has beyond its label's."""
_SIDE = re.compile(r"l|r|lh|rh|left|right", re.IGNORECASE)
_CONTRAST = re.compile(
    r"t1|t2|t1w|t2w|t1ce|t1c|t1gd|t2star|t2starw|flair|pd|pdw|mprage|space|tse|dwi|adc|swi|ct|pet"
    r"|inv\d?|unit1|averaged?|mean",
    re.IGNORECASE,
)


def words(name: str) -> tuple[str, ...]:
    """The words of a name: what stands between `_`, `-`, `.` and blanks."""
    return tuple(word for word in _SEPARATOR.split(name) if word)


def says_label(name: str) -> bool:
    """Whether a name has a word for a label."""
    return any(_LABEL.fullmatch(word) for word in words(name))


def without_kind(name: str) -> tuple[str, ...]:
    """The words of a name, but for those that say whether it is an image or a label."""
    return tuple(w for w in words(name) if not (_LABEL.fullmatch(w) or _IMAGE.fullmatch(w)))


def contrast(name: str) -> str:
    """The contrast that a name says; empty if it says none."""
    return "_".join(word for word in words(name) if _CONTRAST.fullmatch(word))


def series_name(parts: tuple[str, ...]) -> str:
    """Side and contrast as the words of folders and name say them, else `images`."""
    every = [word.lower() for part in parts for word in words(part)]
    said = [w for w in every if _SIDE.fullmatch(w)] + [w for w in every if _CONTRAST.fullmatch(w)]
    return "_".join(dict.fromkeys(said)) or "images"
