"""From pairs of files to the patterns that discovery finds exactly them with.

Nothing is assumed about what a pattern matches: each is tried out on the folder, and
where none says what is meant, there is none, and a table takes its place.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings, PatternSettings
from hsf_finetune.data.discovery.images import annotated_images, excluded_files
from hsf_finetune.data.discovery.pairing import glob_files
from hsf_finetune.data.volumes.read_volume import is_hdf5, stem
from hsf_finetune.describe.layouts.base_layout import Annotated
from hsf_finetune.system.errors import UserError

_MOST_PATTERNS = 12
_MOST_EXCLUDED = 12
_SEPARATOR = re.compile(r"([_\-.\s])")


@dataclass(frozen=True)
class Pattern:
    """An entry of `patterns`; its fields are those of the YAML."""

    name: str
    mri: tuple[str, ...]
    label: str | None
    mri_key: tuple[str, ...] = ()
    label_key: str | None = None


@dataclass(frozen=True)
class Patterns:
    """The patterns of a dataset, and the files that they match and should not."""

    patterns: tuple[Pattern, ...]
    exclude: tuple[str, ...]


def patterns_of(cases: Sequence[Annotated], root: Path) -> Patterns | None:
    """Patterns that match the images of the cases and nothing that is used otherwise.

    Args:
        cases: images with their labels.
        root: the folder that patterns start from.

    Returns:
        None where there would be too many patterns or files to leave out, or a pattern
        matches files that play another part.
    """
    groups: dict[tuple[object, ...], list[Annotated]] = defaultdict(list)
    recurring = Counter(_names(case) for case in cases)
    for case in cases:
        groups[_signature(case, root, recurring)].append(case)
    if len(groups) > min(_MOST_PATTERNS, max(2, len(cases) // 2)):
        return None
    used = {item.ref.path for case in cases for item in case.items}
    titles = Counter(group[0].series for group in groups.values())
    numbers: Counter[str] = Counter()
    patterns: list[Pattern] = []
    extra: set[Path] = set()
    for group in groups.values():
        series = group[0].series
        numbers[series] += 1
        name = series if titles[series] == 1 else f"{series}_{numbers[series]}"
        fitting = _fitting(name, group, root, used)
        if fitting is None:
            return None
        patterns.append(fitting[0])
        extra |= fitting[1]
    exclude = _excluding(extra, used, root)
    if exclude is None or not _finds(patterns, exclude, cases, root):
        return None
    return Patterns(tuple(patterns), exclude)


# -------------------------------------------------------------------- internals
def _finds(
    patterns: Sequence[Pattern], exclude: Sequence[str], cases: Sequence[Annotated], root: Path
) -> bool:
    """Whether discovery pairs the files in the same way."""
    dataset = DatasetSettings(
        path=".",
        patterns={
            p.name: PatternSettings(
                mri=[*p.mri], label=p.label, mri_key=[*p.mri_key] or None, label_key=p.label_key
            )
            for p in patterns
        },
        exclude=[*exclude],
        labels_names={1: "any"},
    )
    try:
        pairs, problems = annotated_images("", dataset, root, excluded_files(dataset, root))
    except UserError:
        return False
    found = {(*pair.channels, pair.label) for pair in pairs}
    return not problems and found == {tuple(item.ref for item in case.items) for case in cases}


def _files(case: Annotated) -> tuple[Path, ...]:
    """The files of channels and label, each once."""
    return tuple(dict.fromkeys(item.ref.path for item in case.items))


def _names(case: Annotated) -> tuple[str, ...]:
    return tuple(path.name for path in _files(case))


def _signature(
    case: Annotated, root: Path, recurring: Mapping[tuple[str, ...], int]
) -> tuple[object, ...]:
    """What cases of one pattern have in common."""
    files = _files(case)
    beside = len({path.parent for path in files}) == 1
    depths = tuple(len(path.relative_to(root).parts) for path in files)
    shape = (case.series, _keys(case), len(files), beside)
    if recurring[_names(case)] > 1:
        return (*shape, *_names(case), () if beside else depths)
    kinds = tuple(path.name[len(stem(path)) :] for path in files)
    every = set.intersection(*({*_SEPARATOR.split(stem(path))} for path in files))
    rests = tuple(
        tuple(word for word in _SEPARATOR.split(stem(path)) if word not in every) for path in files
    )
    return (*shape, kinds, rests, depths)


def _keys(case: Annotated) -> tuple[str | None, ...]:
    return tuple(item.ref.key for item in case.items)


def _fitting(
    name: str, group: Sequence[Annotated], root: Path, used: set[Path]
) -> tuple[Pattern, set[Path]] | None:
    """The first pattern that matches nothing used elsewhere, and what it matches too much."""
    wanted = {case.channels[0].ref.path for case in group}
    for digits in (False, True):
        globs = _globs(group, root, digits)
        if globs is None:
            continue
        try:
            matched = {found.path for found in glob_files(root, globs[0])}
        except UserError:
            continue
        if wanted <= matched and not (matched - wanted) & used:
            return _pattern(name, group[0], globs), matched - wanted
    return None


def _pattern(name: str, case: Annotated, globs: Sequence[str]) -> Pattern:
    """The entry for globs of the case's files."""
    of = dict(zip(_files(case), globs, strict=True))
    mri = tuple(dict.fromkeys(of[item.ref.path] for item in case.channels))
    keys = tuple(i.ref.key for i in case.channels if i.ref.key is not None)
    inside = case.label.ref.path in {item.ref.path for item in case.channels}
    return Pattern(
        name,
        mri,
        None if inside else of[case.label.ref.path],
        keys if is_hdf5(case.channels[0].ref.path) else (),
        case.label.ref.key,
    )


def _globs(group: Sequence[Annotated], root: Path, digits: bool) -> list[str] | None:
    """One glob per file of a case; further files are looked up by the first one's wildcards.

    Args:
        group: cases of one signature.
        root: the folder.
        digits: let the last wildcard of names end in a digit, so that `a1.nii.gz` is told
            from `a1_seg.nii.gz`.
    """
    rows = [[path.relative_to(root) for path in _files(case)] for case in group]
    beside = all(path.parent == row[0].parent for row in rows for path in row)
    globs = []
    for number, paths in enumerate(zip(*rows, strict=True)):
        stems = [stem(path) for path in paths]
        suffix = paths[0].name[len(stems[0]) :]
        name = _aligned(stems)
        if digits:
            last = name.rfind("*")
            if last < 0 or not all(_digit_before(s, name[last + 1 :]) for s in stems):
                return None
            name = f"{name[:last]}*[0-9]{name[last + 1 :]}"
        folder = "" if beside and number else _folder([path.parent for path in paths])
        globs.append(f"{folder}{name}{suffix}")
    return globs


def _digit_before(name: str, rest: str) -> bool:
    return name[: len(name) - len(rest)][-1:].isdigit()


def _folder(folders: Sequence[Path]) -> str:
    """The folders as a glob, with a slash behind it."""
    parts = [folder.parts for folder in folders]
    if len({len(p) for p in parts}) == 1:
        levels = [_aligned(level) for level in zip(*parts, strict=True)]
        return "".join(f"{level}/" for level in levels)
    shared = []
    for level in zip(*parts, strict=False):
        if len({*level}) > 1:
            break
        shared.append(level[0])
    return "".join(f"{level}/" for level in shared) + "**/"


def _aligned(names: Sequence[str]) -> str:
    """The names as one glob: words that differ become `*`."""
    split = [_SEPARATOR.split(name) for name in names]
    if len({len(words) for words in split}) == 1:
        levels = [{*level} for level in zip(*split, strict=True)]
        return "".join(next(iter(level)) if len(level) == 1 else "*" for level in levels)
    shortest = min(len(words) for words in split)
    head = _shared(split, shortest)
    tail = _shared([words[::-1] for words in split], shortest - len(head))
    return "".join([*head, "*", *tail[::-1]])


def _shared(split: Sequence[Sequence[str]], most: int) -> list[str]:
    """The words that all begin with."""
    found: list[str] = []
    for level in list(zip(*split, strict=False))[:most]:
        if len({*level}) > 1:
            break
        found.append(level[0])
    return found


def _excluding(extra: set[Path], used: set[Path], root: Path) -> tuple[str, ...] | None:
    """Patterns that exclude files, whole folders where nothing in them is used."""
    found: list[str] = []
    for path in sorted(extra):
        relative = path.relative_to(root)
        free = next(
            (
                folder
                for folder in [*reversed(relative.parents)][1:]
                if not any(other.is_relative_to(root / folder) for other in used)
            ),
            None,
        )
        found.append(f"{free.as_posix()}/**" if free else relative.as_posix())
    unique = tuple(dict.fromkeys(found))
    special = any(re.search(r"[\[\]?]", glob) for glob in unique)
    return None if special or len(unique) > _MOST_EXCLUDED else unique
