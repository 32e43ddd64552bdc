"""Which rule tells the subjects of the cases: discovery's own, or an expression to write."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.discovery.subjects import subject_ids
from hsf_finetune.describe.layouts.base_layout import Annotated, Doubt, some

_GLUED_SIDE = re.compile(r"(?:^|/)([^/]*?\d)(?:[LlRr]|[Ll]eft|[Rr]ight)(?![A-Za-z0-9])[^/]*$")
"""`c01L_image`, `HFH001Right`: a number with a side right behind it."""


@dataclass(frozen=True)
class Subjects:
    """The subjects of the cases.

    Args:
        rule: the expression to write; None where discovery's own rule does.
        ids: one subject per case.
        doubts: what is not certain.
    """

    rule: str | None
    ids: tuple[str, ...]
    doubts: tuple[Doubt, ...]


def find_subjects(cases: Sequence[Annotated], root: Path, told_inside: bool = False) -> Subjects:
    """Applies discovery's rule, and where that parts the sides of a person, another one.

    Args:
        cases: images with their labels.
        root: the folder.
        told_inside: let the groups inside of HDF5 files count as folders.
    """
    paths = [
        root / case.channels[0].pseudo_path if told_inside else case.channels[0].ref.path
        for case in cases
    ]
    ids, rule = subject_ids(paths, root, None), None
    glued = [_GLUED_SIDE.search(_bare(path, root)) for path in paths]
    if all(glued):
        merged = [match[1] for match in glued if match]
        if len({*merged}) < len({*ids}) and _coarser(merged, ids):
            ids, rule = merged, _GLUED_SIDE.pattern.replace("[^/]*$", "")
    doubts = []
    count = len({*ids})
    if rule is not None:
        text = f"names like {paths[0].name} end in a side: {count} people, such as {some(ids[:2])}"
        doubts.append(Doubt("subject", text))
    elif count == 1 and len(cases) > 1:
        text = f"all {len(cases)} cases seem to be of one person ({ids[0]}), who cannot be split"
        doubts.append(Doubt("subject", text))
    elif _sides_apart(cases, ids):
        text = f"there are two sides, yet every case is a person of its own: {some(ids)}"
        doubts.append(Doubt("subject", text))
    return Subjects(rule, tuple(ids), tuple(doubts))


# -------------------------------------------------------------------- internals
def _bare(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    return re.sub(r"\.(nii(\.gz)?|h5|hdf5)$", "", relative, flags=re.IGNORECASE)


def _coarser(merged: Sequence[Hashable], ids: Sequence[Hashable]) -> bool:
    """Whether one rule only unites what the other parts."""
    return len({*zip(ids, merged, strict=True)}) == len({*ids})


def _sides_apart(cases: Sequence[Annotated], ids: Sequence[str]) -> bool:
    sides = {case.series for case in cases}
    return len(sides) > 1 and len(cases) > len(sides) and len({*ids}) == len(cases)
