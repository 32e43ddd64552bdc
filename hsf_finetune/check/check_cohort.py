"""The whole check: every case by itself, then the set of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hsf_finetune.check.check_alignment import pose_findings
from hsf_finetune.check.check_duplicates import duplicate_findings
from hsf_finetune.check.check_outliers import outlier_findings
from hsf_finetune.check.check_sides import side_findings
from hsf_finetune.check.facts import Facts
from hsf_finetune.check.facts_cache import fingerprint, remember, remembered
from hsf_finetune.check.findings import TIERS, Finding, Tier
from hsf_finetune.check.measured_cases import Member, groups, measured_members
from hsf_finetune.data.census import FEW_CASES, Census, check_census, take_census
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.system.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen.

    Args:
        cases: all of them, in the cohort's order.
        facts: of each case.
        findings: the gravest first.
        known: cases whose facts were remembered.
    """

    cases: tuple[Case, ...]
    facts: tuple[Facts, ...]
    findings: tuple[Finding, ...]
    known: int

    def of(self, *tiers: Tier) -> list[Finding]:
        """The findings of these tiers."""
        return [finding for finding in self.findings if finding.tier in tiers]

    def members(self, cases: Sequence[Case] | None = None) -> list[Member]:
        """The cases that could be measured, or those of them that are asked for."""
        found = measured_members(self.cases, self.facts)
        if cases is None:
            return found
        names = {case.name for case in cases}
        return [member for member in found if member.case.name in names]


def look_at(
    cohort: Cohort,
    jobs: int | None = None,
    progress: Progress | None = None,
    training: Sequence[Case] | None = None,
    allowed: Sequence[str] = (),
) -> Look:
    """Looks at every case and at the set.

    Memory does not grow with the number of cases: at most one case per thread is held.

    Args:
        cohort: the cases.
        jobs: threads; None is one for each CPU that this process may use.
        progress: is told how many cases are done.
        training: cases that train, in which every class has to be shown; None is all.
        allowed: classes that no label needs to show.
    """
    cases = cohort.cases
    keys = [fingerprint(case) for case in cases]
    before = remembered(cases, {*keys})
    facts: dict[int, Facts] = {n: before[k] for n, k in enumerate(keys) if k and k in before}
    known = len(facts)
    todo = [n for n in range(len(cases)) if n not in facts]
    for number, fact in _examined(cases, todo, jobs or processors()):
        facts[number] = fact
        if progress:
            progress(len(facts), len(cases))
    if todo:
        remember(cases, {key: facts[n] for n, key in enumerate(keys) if key})
    every = tuple(facts[n] for n in range(len(cases)))
    findings = [finding for fact in every for finding in fact.findings]
    findings += set_findings(cohort, every, training, allowed)
    findings.sort(key=lambda f: (TIERS.index(f.tier), f.case, f.kind))
    return Look(cases, every, tuple(findings), known)


def set_findings(
    cohort: Cohort,
    facts: Sequence[Facts],
    training: Sequence[Case] | None = None,
    allowed: Sequence[str] = (),
) -> Iterator[Finding]:
    """What only several cases together show."""
    members = measured_members(cohort.cases, facts)
    for group in groups(members):
        yield from outlier_findings(group)
        yield from pose_findings(group)
    yield from duplicate_findings(members)
    yield from side_findings(members)
    names = {case.name for case in (cohort.cases if training is None else training)}
    shown = [m for m in members if m.case.name in names]
    # Where files cannot be read, the classes they show are not known.
    if shown and len(members) == len(cohort.cases):
        yield from _census_findings(shown, cohort, allowed)


def take_look_census(members: Sequence[Member], cohort: Cohort) -> Census:
    """What supervises each class, counted in the files' own voxels."""
    counted = [(m.case, np.array(m.measured.row_voxels)) for m in members]
    return take_census(counted, cohort.classes)


def processors() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# -------------------------------------------------------------------- internals
def _examined(
    cases: Sequence[Case], numbers: Sequence[int], jobs: int
) -> Iterator[tuple[int, Facts]]:
    """Facts by number, with never more than two cases per thread on their way."""
    if not numbers:
        return
    # Imported late: SciPy takes longer to import than remembered facts to judge.
    from hsf_finetune.check.check_case import examine

    if jobs <= 1 or len(numbers) <= 1:
        yield from ((n, examine(cases[n])) for n in numbers)
        return
    left = iter(numbers)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = [(n, pool.submit(examine, cases[n])) for n in islice(left, 2 * jobs)]
        while waiting:
            number, future = waiting.pop(0)
            yield number, future.result()
            waiting += [(n, pool.submit(examine, cases[n])) for n in islice(left, 1)]


def _census_findings(
    members: Sequence[Member], cohort: Cohort, allowed: Sequence[str]
) -> Iterator[Finding]:
    census = take_look_census(members, cohort)
    folder = str(members[0].case.label.path.parent)
    try:
        check_census(census, allowed)
    except DataError as error:
        yield Finding.refusal(error, "set/class never drawn", folder)
    for name in cohort.classes.foreground:
        count = sum(max(row.exact_cases, row.set_cases) for row in census.of_class(name))
        if 0 < count < min(FEW_CASES, len(members)):
            yield Finding(
                "warned",
                "set/rare class",
                f"few training cases show {name}",
                folder,
                found=f"{count} of {len(members)}",
                expected=f"{FEW_CASES} or more",
                fix="draw it in more cases, or see that those cases train (split_file:)",
            )
