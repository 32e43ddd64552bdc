"""The cases that can be compared with each other, in groups of the same kind."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import Finding, warn_about
from hsf_finetune.check.kept_facts import KeptFacts
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.labels.classes import LabelMap
from hsf_finetune.labels.laterality import side_of

Numbers = npt.NDArray[np.float64]

MIN_CASES = 4
"""With fewer cases than this nothing says what is usual."""
_USUAL_SHARE = 0.8
"""A class that so many of the cases have is expected in all of them."""


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredCase:
    """A case whose files could be read and measured.

    Args:
        case: its files.
        facts: what was measured, which is not kept in memory.
    """

    case: Case
    facts: KeptFacts

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    @property
    def subject(self) -> str:
        """The person."""
        return self.case.subject

    @property
    def protocol(self) -> LabelMap:
        """What the label's values mean."""
        return self.case.protocol

    @property
    def image_file(self) -> str:
        """The file of its first channel."""
        return str(self.case.images[0])

    @property
    def label_file(self) -> str:
        """The file of its label."""
        return str(self.case.label)

    @property
    def warn_image(self) -> partial[Finding]:
        """Makes warnings about the image, see `warn_about`."""
        return warn_about(self.image_file, self.name)

    @property
    def warn_label(self) -> partial[Finding]:
        """Makes warnings about the label."""
        return warn_about(self.label_file, self.name)


def select_measured(cases: Sequence[Case], facts: Sequence[KeptFacts]) -> list[MeasuredCase]:
    """The cases that could be measured, by the facts of each of them."""
    return [
        MeasuredCase(case, fact)
        for case, fact in zip(cases, facts, strict=True)
        if fact.is_measured
    ]


def read_numbers(cases: Sequence[MeasuredCase], *names: str) -> list[Numbers]:
    """Measures of all cases, by their names in `Measures`, each (cases, numbers of one case).

    A number that could not be measured is NaN.

    Raises:
        ValueError: the cases differ in how many numbers they have.
    """
    columns = [array("d") for _ in names]
    counts: list[set[int]] = [set() for _ in names]
    for case in cases:
        measures = case.facts.read_measures()
        for name, column, count in zip(names, columns, counts, strict=True):
            value = getattr(measures, name)
            numbers = value if isinstance(value, tuple) else (value,)
            column.extend(math.nan if number is None else number for number in numbers)
            count.add(len(numbers))
    if any(len(count) > 1 for count in counts):
        raise ValueError(f"{names}: cases with {counts} numbers")
    return [np.frombuffer(column).reshape(len(cases), -1) for column in columns]


def group_cases(cases: Sequence[MeasuredCase]) -> list[list[MeasuredCase]]:
    """Groups of one dataset, series and side, whose cases should be similar."""
    groups: dict[tuple[str, str, str | None], list[MeasuredCase]] = {}
    for measured in cases:
        case = measured.case
        key = (case.dataset, case.series, side_of(case.images[0].path.name))
        groups.setdefault(key, []).append(measured)
    return list(groups.values())


def find_lacking(group: Sequence[MeasuredCase]) -> Iterator[tuple[int, list[MeasuredCase]]]:
    """Rows of the classes that nearly all labels of a group have, each with the cases without it."""
    rows = np.flatnonzero(group[0].protocol.foreground_rows)
    (voxels,) = read_numbers(group, "row_voxels")
    labelled = voxels[:, rows].any(axis=1)
    for row in rows.tolist():
        lacking = np.flatnonzero(labelled & (voxels[:, row] == 0))
        if labelled.sum() - len(lacking) >= _USUAL_SHARE * labelled.sum():
            yield row, [group[n] for n in lacking.tolist()]
