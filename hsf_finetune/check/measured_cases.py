"""The cases that can be compared with each other, in groups of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hsf_finetune.check.case_facts import Measures, Thumbnails
from hsf_finetune.check.findings import Finding, warn_about
from hsf_finetune.check.kept_facts import KeptFacts
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.labels.classes import LabelMap
from hsf_finetune.labels.laterality import side_of

MIN_CASES = 4
"""With fewer cases than this nothing says what is usual."""
_USUAL_SHARE = 0.8
"""A class that so many of the cases have is expected in all of them."""


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredCase:
    """A case whose files could be read and measured.

    Args:
        case: its files.
        measures: what was measured.
        read_thumbnails: reads its thumbnails, which are not kept in memory.
    """

    case: Case
    measures: Measures
    read_thumbnails: Callable[[], Thumbnails]

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
        MeasuredCase(case, fact.measures, fact.read_thumbnails)
        for case, fact in zip(cases, facts, strict=True)
        if fact.measures is not None
    ]


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
    labelled = [case for case in group if case.measures.label_hash]
    for row in np.flatnonzero(group[0].protocol.foreground_rows).tolist():
        lacking = [case for case in labelled if not case.measures.row_voxels[row]]
        if len(labelled) - len(lacking) >= _USUAL_SHARE * len(labelled):
            yield row, lacking
