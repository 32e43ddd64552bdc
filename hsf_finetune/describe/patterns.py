"""From images with labels to the patterns with which discovery finds exactly these cases.

Each pattern is tried out on the folder. Where none gives exactly the cases, there is none, and
a table takes its place.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings, PatternSettings
from hsf_finetune.data.discovery.match_patterns import find_annotated_images, find_excluded_files
from hsf_finetune.data.discovery.pairing import glob_files
from hsf_finetune.data.volumes.read_volume import stem
from hsf_finetune.describe.layouts.base_layout import FoundCase, place_of
from hsf_finetune.system.errors import UserError

_MAX_PATTERNS = 12
_MAX_EXCLUDED = 12
_SEPARATOR = re.compile(r"([_\-.\s])")


def find_patterns(cases: Sequence[FoundCase], root: Path) -> DatasetSettings | None:
    """Patterns from `root`, and files to exclude, with which discovery finds exactly these cases.

    Returns:
        Settings in which only `patterns` and `exclude` have a meaning; None where there would
        be too many of them, or discovery finds other cases.
    """
    names = Counter(_file_names(case) for case in cases)
    recur = [names[_file_names(case)] > 1 for case in cases]
    # Names that recur are those of contrasts (a folder per person), or of people.
    for by_names in (recur, [False] * len(cases)) if any(recur) else (recur,):
        groups: dict[tuple[object, ...], list[FoundCase]] = defaultdict(list)
        for case, recurs in zip(cases, by_names, strict=True):
            groups[_group_key(case, root, recurs)].append(case)
        found = _find_group_patterns(groups, cases, root)
        if found is not None:
            return found
    return None


def _find_group_patterns(
    groups: Mapping[tuple[object, ...], Sequence[FoundCase]],
    cases: Sequence[FoundCase],
    root: Path,
) -> DatasetSettings | None:
    """As `find_patterns`, with one pattern for each group of the cases."""
    if len(groups) > min(_MAX_PATTERNS, max(2, len(cases) // 2)):
        return None
    used = {volume.ref.file for case in cases for volume in case.volumes}
    series_count = Counter(group[0].series for group in groups.values())
    numbers: Counter[str] = Counter()
    patterns: dict[str, PatternSettings] = {}
    extra: set[str] = set()
    for group in groups.values():
        series = group[0].series
        numbers[series] += 1
        name = series if series_count[series] == 1 else f"{series}_{numbers[series]}"
        found = _find_pattern(group, root, used)
        if found is None:
            return None
        patterns[name] = found[0]
        extra |= found[1]
    exclude = _exclude_globs(extra, used, root)
    if len(exclude) > _MAX_EXCLUDED:
        return None
    dataset = DatasetSettings(
        path=".", patterns=patterns, exclude=exclude, labels_names={1: "any label"}
    )
    return dataset if _finds_cases(dataset, cases, root) else None


def _finds_cases(dataset: DatasetSettings, cases: Sequence[FoundCase], root: Path) -> bool:
    """Whether discovery pairs the files in the same way."""
    try:
        excluded = find_excluded_files(dataset, root)
        images, problems = find_annotated_images("", dataset, root, excluded)
    except UserError:
        return False
    # In order of their images, so that no second list of all files is needed.
    wanted = sorted(cases, key=lambda case: place_of(case.channels[0].ref))
    images.sort(key=lambda image: place_of(image.channels[0]))
    return (
        not problems
        and len(images) == len(wanted)
        and all(
            (*image.channels, image.label) == tuple(volume.ref for volume in case.volumes)
            for image, case in zip(images, wanted, strict=True)
        )
    )


def _files(case: FoundCase) -> tuple[Path, ...]:
    """The files of channels and label, each once."""
    return tuple(dict.fromkeys(volume.ref.path for volume in case.volumes))


def _file_names(case: FoundCase) -> tuple[str, ...]:
    return tuple(path.name for path in _files(case))


def _group_key(case: FoundCase, root: Path, names_recur: bool) -> tuple[object, ...]:
    """What the cases of one pattern have in common; names may recur in other folders."""
    files = _files(case)
    beside = len({path.parent for path in files}) == 1
    depths = tuple(len(path.relative_to(root).parts) for path in files)
    key = (case.series, tuple(volume.ref.key for volume in case.volumes), beside)
    if names_recur:
        return (*key, _file_names(case), () if beside else depths)
    suffixes = tuple(path.name[len(stem(path)) :].lower() for path in files)
    words = [_SEPARATOR.split(stem(path)) for path in files]
    common = set.intersection(*map(set, words))
    own_words = tuple(tuple(word for word in name if word not in common) for name in words)
    return (*key, suffixes, own_words, depths)


def _find_pattern(
    group: Sequence[FoundCase], root: Path, used: set[str]
) -> tuple[PatternSettings, set[str]] | None:
    """A pattern that matches no file used otherwise, and the unused files that it matches too."""
    wanted = {case.channels[0].ref.file for case in group}
    # The second form distinguishes a1.nii.gz from a1_seg.nii.gz.
    for wildcard in ("*", "*[0-9]"):
        globs = _make_globs(group, root, wildcard)
        try:
            matched = {match.file for match in glob_files(root, globs[0])}
        except UserError:
            continue
        if wanted <= matched and not (matched - wanted) & used:
            return _make_pattern(group[0], globs), matched - wanted
    return None


def _make_pattern(case: FoundCase, globs: Sequence[str]) -> PatternSettings:
    """The settings for the globs of a case's files."""
    glob_of = dict(zip(_files(case), globs, strict=True))
    images, label = [channel.ref for channel in case.channels], case.label.ref
    mri = [*dict.fromkeys(glob_of[ref.path] for ref in images)]
    keys = [ref.key for ref in images if ref.key is not None]
    inside = label.path in {ref.path for ref in images}
    one_key = not inside and {*keys} == {label.key}
    return PatternSettings(
        mri=mri[0] if len(mri) == 1 else mri,
        label=None if inside else glob_of[label.path],
        key=label.key if one_key else None,
        mri_key=None if one_key or not keys else keys[0] if len(keys) == 1 else keys,
        label_key=None if one_key else label.key,
    )


def _make_globs(group: Sequence[FoundCase], root: Path, wildcard: str) -> list[str]:
    """One glob per file of a case; all but the first are looked up by the first one's wildcards.

    The wildcard takes the place of the last `*` in a file's name.
    """
    beside = all(len({path.parent for path in _files(case)}) == 1 for case in group)
    globs = []
    for number, first in enumerate(_files(group[0])):
        names = [stem(_files(case)[number]) for case in group]
        suffix = first.name[len(stem(first)) :].lower()
        start, star, end = _merge_names(names).rpartition("*")
        folder = "" if beside and number else _merge_folders(group, number, root)
        globs.append(f"{folder}{start}{wildcard if star else ''}{end}{suffix}")
    return globs


def _merge_folders(group: Sequence[FoundCase], number: int, root: Path) -> str:
    """The folders of a file of each case as a glob, with a slash behind it."""
    parts = [_files(case)[number].relative_to(root).parts[:-1] for case in group]
    if len({*map(len, parts)}) == 1:
        levels = [_merge_names(level) for level in zip(*parts, strict=True)]
    else:
        levels = [*_common_start(parts), "**"]
    return "".join(f"{level}/" for level in levels)


def _merge_names(names: Sequence[str]) -> str:
    """The names as one glob: words that differ become `*`."""
    words = [_SEPARATOR.split(name) for name in names]
    if len({*map(len, words)}) == 1:
        columns = [{*column} for column in zip(*words, strict=True)]
        return "".join(column.pop() if len(column) == 1 else "*" for column in columns)
    start = _common_start(words)
    end = _common_start([name[len(start) :][::-1] for name in words])
    return "".join([*start, "*", *end[::-1]])


def _common_start(rows: Sequence[Sequence[str]]) -> list[str]:
    """The words with which all rows begin."""
    columns = zip(*rows, strict=False)
    return [column[0] for column in takewhile(lambda column: len({*column}) == 1, columns)]


def _exclude_globs(extra: set[str], used: set[str], root: Path) -> list[str]:
    """Globs for the extra files: whole folders where nothing in them is used."""
    globs = []
    for path in sorted(map(Path, extra)):
        relative = path.relative_to(root)
        folders = [*reversed(relative.parents)][1:]
        unused = [
            f for f in folders if not any(Path(file).is_relative_to(root / f) for file in used)
        ]
        globs.append(f"{unused[0].as_posix()}/**" if unused else relative.as_posix())
    return [*dict.fromkeys(globs)]
