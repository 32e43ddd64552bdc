"""Which person a file belongs to, so that nobody ends up on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hsf_finetune.data.volumes import stem
from hsf_finetune.errors import ConfigError, DataError

_BIDS = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)")
_SEPARATOR = re.compile(r"[_\-.\s]+")
_NOT_A_PERSON = re.compile(
    r"(l|r|lh|rh|left|right|hemi|both|bilateral"
    r"|t1|t2|t1w|t2w|t2star|flair|pd|pdw|mprage|space|tse|mri|anat|averaged?|mean"
    r"|ses|session|visit|run|acq|tp|time|timepoint|baseline|followup|scan"
    r"|im|img|image|seg|segmentation|label|labels|dseg|mask|crop|cropped|desc|preproc"
    r"|((ses|session|visit|run|tp|v)\d+))",
    re.IGNORECASE,
)


def subject_ids(paths: Sequence[Path], root: Path, pattern: str | None) -> list[str]:
    """One subject per file.

    In order: the dataset's own regular expression; a BIDS `sub-*` entity; the
    case's own folder, where folders tell people apart; the file's stem without
    words for side, contrast and session.

    Args:
        paths: image files below `root`.
        root: the dataset's folder.
        pattern: regular expression on the path relative to `root`; its first
            group (or the whole match) is the subject.

    Raises:
        ConfigError: the expression is not valid.
        DataError: the expression does not match a file.
    """
    relative = [path.relative_to(root).as_posix() for path in paths]
    if pattern is not None:
        return [_by_pattern(path, pattern) for path in relative]
    bids = [_BIDS.search(path) for path in relative]
    if all(bids) and bids:
        return [match.group(1) for match in bids if match]
    folders = [_person_words(Path(path).parent.parts) for path in relative]
    if all(folders) and _each_has_its_own(relative):
        return folders
    return [_person_words([stem(Path(path))]) or stem(Path(path)) for path in relative]


def _by_pattern(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise ConfigError(
            "subject: is not a valid regular expression", found=pattern, fix=str(error)
        ) from error
    if match is None:
        raise DataError(
            "the regular expression for the subject does not match a file",
            file=path,
            found=f"subject: {pattern}",
            fix=r"write one that matches every path, such as subject: 'sub-(\w+)/'",
        )
    return match.group(1) if match.groups() else match.group()


def _each_has_its_own(relative: Sequence[str]) -> bool:
    """Whether folders, rather than file names, tell people apart.

    They do where each folder holds one kind of image, or where the same kinds
    come back in folder after folder; a kind is a file name without words for
    side, contrast and session. In doubt the folder wins: too few subjects is a
    nuisance, one subject on both sides of a split is a wrong result.
    """
    kinds = {(Path(p).parent, _person_words([stem(Path(p))])) for p in relative}
    folders = {folder for folder, _ in kinds}
    recurring = len({kind for _, kind in kinds}) < len(kinds)
    return len(folders) == len(kinds) or recurring


def _person_words(parts: Sequence[str]) -> str:
    """The words of a path that may name a person."""
    words = []
    for part in parts:
        kept = [w for w in _SEPARATOR.split(part) if w and not _NOT_A_PERSON.fullmatch(w)]
        if kept:
            words.append("_".join(kept))
    return "/".join(words)
