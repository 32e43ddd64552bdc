"""Which rule finds the subjects of the cases: discovery's own, or a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.discovery.subjects import assign_subjects
from hsf_finetune.describe.layouts.base_layout import FoundCase, UnsureNote
from hsf_finetune.system.console import shorten_list

_NUMBER_AND_SIDE = re.compile(r"(?:^|/)([^/]*?\d)(?:[LlRr]|[Ll]eft|[Rr]ight)(?![A-Za-z0-9])[^/]*$")
"""`c01L_image`, `HFH001Right`: a side directly behind a number."""


@dataclass(frozen=True)
class SubjectRule:
    """The regular expression to write, None for discovery's own rule, and a subject per case."""

    expression: str | None
    subjects: tuple[str, ...]
    notes: tuple[UnsureNote, ...]


def find_subject_rule(
    cases: Sequence[FoundCase], root: Path, groups_are_folders: bool = False
) -> SubjectRule:
    """Applies discovery's rule; where that separates the sides of a person, another one.

    With `groups_are_folders`, groups inside HDF5 files count as folders.
    """
    channels = [case.channels[0] for case in cases]
    paths = [channel.ref.path for channel in channels]
    if groups_are_folders:
        paths = [root.joinpath(*channel.folders, channel.name) for channel in channels]
    subjects, expression = assign_subjects(paths, root, None), None
    matches = [_NUMBER_AND_SIDE.search(_without_suffix(path, root)) for path in paths]
    if all(matches):
        merged = [match[1] for match in matches if match]
        # The other rule has to unite subjects, and may not separate any.
        unites = len({*merged}) < len({*subjects})
        if unites and len({*zip(subjects, merged, strict=True)}) == len({*subjects}):
            subjects = merged
            expression = _NUMBER_AND_SIDE.pattern.replace("[^/]*$", "")
    text = ""
    count = len({*subjects})
    if expression is not None:
        text = (
            f"names like {paths[0].name} end in a side: {count} people, such as "
            f"{shorten_list(subjects[:2])}"
        )
    elif count == 1 and len(cases) > 1:
        text = (
            f"all {len(cases)} cases seem to be of one person ({subjects[0]}); no split is possible"
        )
    elif 1 < len({case.series for case in cases}) < len(cases) == count:
        text = f"there are two sides, yet every case is another person: {shorten_list(subjects)}"
    notes = (UnsureNote("subject", text),) if text else ()
    return SubjectRule(expression, tuple(subjects), notes)


def _without_suffix(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    return re.sub(r"\.(nii(\.gz)?|h5|hdf5)$", "", relative, flags=re.IGNORECASE)
