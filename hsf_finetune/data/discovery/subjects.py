"""Which person a file belongs to, so that nobody is on both sides of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hsf_finetune.data.discovery.channel_numbers import find_channels
from hsf_finetune.data.volumes.read_volume import stem
from hsf_finetune.system.errors import ConfigError, DataError

_BIDS = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)", re.IGNORECASE)
_SEPARATOR = re.compile(r"[_\-.\s]+")
_BEFORE_NUMBER = re.compile(r"(?<=[^\W\d_])(?=\d)")
_NOT_A_PERSON = re.compile(
    r"l|r|lh|rh|left|right|hemi|both|bilateral|(l|r|lh|rh|left|right)hipp(o(campus)?)?"
    r"|t1|t2|t1w|t2w|t2star|flair|pd|pdw|mprage|space|tse|mri|anat|averaged?|mean"
    r"|im|img|image|seg|segmentation|label|labels|dseg|mask|crop|cropped|desc|preproc|scan",
    re.IGNORECASE,
)
"""Words for side, contrast and kind of file."""
_SESSION = re.compile(
    r"ses|session|visit|run|acq|tp|time|timepoint|baseline|followup", re.IGNORECASE
)
"""Words for a session; a number behind one belongs to it."""
_NUMBERED_SESSION = re.compile(r"(ses|session|visit|run|tp|timepoint|v)\d+", re.IGNORECASE)


def assign_subjects(paths: Iterable[Path], root: Path, pattern: str | None) -> list[str]:
    """The subject of each file.

    The first rule that applies: the dataset's own regular expression; for each file with a
    BIDS `sub-*` entity, that; for the other files among themselves, the case's own folder,
    where folders tell people apart, or the file's stem without nnU-Net's number of a channel
    and words for side, contrast and session. Files whose names hold only such words count as one
    person. Subjects that differ in upper and lower case or in separators only (`sub-01`,
    `SUB_01`, `sub01`) are one.

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
        return unite_spellings([_by_pattern(path, pattern) for path in relative])
    found = {path: match[1] for path in relative if (match := _BIDS.search(path))}
    others = [path for path in relative if path not in found]
    found |= zip(others, _by_folder_or_name(others), strict=True)
    return unite_spellings([found[path] for path in relative])


def unite_spellings(subjects: Sequence[str]) -> list[str]:
    """The subjects, those that are one person by `person_key` spelt as the first of them."""
    first: dict[str, str] = {}
    return [first.setdefault(person_key(subject), subject) for subject in subjects]


def person_key(subject: str) -> str:
    """The same for all spellings of a subject: `sub-01`, `SUB_01`, `sub01`; not `sub-1`."""
    return _SEPARATOR.sub("_", _BEFORE_NUMBER.sub("_", subject)).casefold()


def of_folder(subject: str, root: Path, base: Path) -> str:
    """The subject among those of all folders.

    Two datasets in one folder are of the same people, datasets in two folders are not.

    Args:
        subject: among those of a dataset.
        root: the dataset's folder.
        base: the folder of all datasets.
    """
    cohort = os.path.relpath(root, base)
    return subject if cohort == "." else f"{Path(cohort).as_posix()}/{subject}"


def _by_folder_or_name(relative: Sequence[str]) -> list[str]:
    """The subjects of files without a BIDS entity, which are looked at together."""
    relative = _without_channels(relative)
    folders = [_person_of_folders(Path(path).parent.parts) for path in relative]
    if all(folders) and _folders_are_people(relative):
        return folders
    words = [_words(stem(Path(path))) for path in relative]
    # Sessions count only where the name holds nothing else.
    return ["_".join(_without_sessions(w) or w) or "unnamed" for w in words]


def _without_channels(relative: Sequence[str]) -> list[str]:
    """The paths without nnU-Net's numbers of channels, where a name remains."""
    paths = [Path(path) for path in relative]
    names = [path.with_name(stem(path)).as_posix() for path in paths]
    channels = find_channels(names)
    found = []
    for path, name in zip(paths, names, strict=True):
        case = Path(channels.get(name, name)).name
        plain = path.with_name(case + path.name.removeprefix(stem(path)))
        found.append((plain if _without_sessions(_words(case)) else path).as_posix())
    return found


def _by_pattern(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, path)
    except re.error as error:
        what = "subject: is not a valid regular expression"
        raise ConfigError(what, found=pattern, fix=str(error)) from error
    subject = match and (match.group(1) if match.groups() else match.group())
    if not subject:
        raise DataError(
            "the regular expression for the subject finds none in a file's path",
            file=path,
            found=f"subject: {pattern}",
            fix=r"write one that matches every path, such as subject: 'sub-(\w+)/'",
        )
    return str(subject)


def _folders_are_people(relative: Sequence[str]) -> bool:
    """Whether folders, rather than file names, tell people apart.

    They do where each folder holds one kind of image, or where the same kinds
    occur again in folder after folder; a kind is a file name without words for
    side, contrast and session, and without words of the folder's name. A single folder
    does where the names hold only such words. In doubt the folder counts: too few
    subjects cost some data, but one subject on both sides of a split gives wrong results.
    """
    kinds = {(Path(p).parent, _kind(Path(p))) for p in relative}
    folders = {folder for folder, _ in kinds}
    if len(folders) == 1:
        return {kind for _, kind in kinds} == {""}
    recurring = len({kind for _, kind in kinds}) < len(kinds)
    return len(folders) == len(kinds) or recurring


def _kind(path: Path) -> str:
    """The words of a file's name that are not in the names of its folders."""
    in_folders = {word for part in path.parent.parts for word in _words(part)}
    return "_".join(w for w in _without_sessions(_words(stem(path))) if w not in in_folders)


def _person_of_folders(parts: Sequence[str]) -> str:
    """The words of folders that may name a person."""
    named = [_without_sessions(_words(part)) for part in parts]
    return "/".join("_".join(words) for words in named if words)


def _words(part: str) -> list[str]:
    """The words of a name without those for side, contrast and kind of file."""
    return [w for w in _SEPARATOR.split(part) if w and not _NOT_A_PERSON.fullmatch(w)]


def _without_sessions(words: Sequence[str]) -> list[str]:
    """Drops words for a session, and the numbers right behind them (`ses-1`)."""
    kept, before = [], ""
    for word in words:
        is_session = _SESSION.fullmatch(word) or _NUMBERED_SESSION.fullmatch(word)
        if not is_session and not (word.isdigit() and _SESSION.fullmatch(before)):
            kept.append(word)
        before = word
    return kept
