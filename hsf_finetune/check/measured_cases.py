"""The cases that can be compared, in groups of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hsf_finetune.check.facts import Facts, Measured, Portrait
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.labels.classes import side_of

FEWEST = 4
"""Fewer cases than this are no standard to hold another one to."""


@dataclass(frozen=True, eq=False)
class Member:
    """A case that was measured."""

    case: Case
    measured: Measured
    portrait: Portrait

    @property
    def image(self) -> str:
        """The file of its first channel."""
        return str(self.case.images[0])

    @property
    def label(self) -> str:
        """The file of its label."""
        return str(self.case.label)


def measured_members(cases: Sequence[Case], facts: Sequence[Facts]) -> list[Member]:
    """The cases that could be measured."""
    return [
        Member(case, fact.measured, fact.portrait)
        for case, fact in zip(cases, facts, strict=True)
        if fact.measured is not None and fact.portrait is not None
    ]


def groups(members: Sequence[Member]) -> list[list[Member]]:
    """Members of one dataset, series and side, which should look alike."""
    found: dict[tuple[str, str, str | None], list[Member]] = {}
    for member in members:
        case = member.case
        key = (case.dataset, case.series, side_of(case.images[0].path.name))
        found.setdefault(key, []).append(member)
    return list(found.values())
