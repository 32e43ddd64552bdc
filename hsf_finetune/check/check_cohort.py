"""The check of a cohort: every case alone, then all cases together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hsf_finetune.check.case_facts import CaseFacts, facts_file, fingerprint
from hsf_finetune.check.check_alignment import check_alignment
from hsf_finetune.check.check_duplicates import find_duplicates
from hsf_finetune.check.check_outliers import find_outliers
from hsf_finetune.check.check_sides import check_sides
from hsf_finetune.check.findings import Finding, warn_about
from hsf_finetune.check.kept_facts import FactsFile, KeptFacts
from hsf_finetune.check.measured_cases import MeasuredCase, group_cases
from hsf_finetune.data.census import FEW_CASES, check_census, take_census
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.system.console import shorten_list
from hsf_finetune.system.errors import DataError

_AT_ONCE = 512
"""Cases that wait for a thread, each of which takes some memory."""


def check_cases(
    cases: Sequence[Case],
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[KeptFacts], int]:
    """Checks every case alone.

    Each thread holds one case at a time, and thumbnails are in a file.

    Args:
        cases: of a cohort.
        jobs: threads; None is one for each CPU that this process may use.
        progress: called with (cases done, cases in all).

    Returns:
        The facts of each case, and the number of cases that were not read again, since their
        files have not changed.
    """
    keys = [fingerprint(case) for case in cases]
    number_of = {key: n for n, key in enumerate(keys) if key}
    file, saved = FactsFile(), facts_file(cases)
    facts = {number_of[key]: fact for key, fact in file.load(saved, number_of)}
    unchanged = len(facts)
    numbers = [n for n in range(len(cases)) if n not in facts]
    for number, fact in _read_facts(cases, numbers, jobs or _available_cpus()):
        facts[number] = file.add(keys[number], fact)
        if progress:
            progress(len(facts), len(cases))
    if numbers:
        file.save(saved)
    return [facts[n] for n in range(len(cases))], unchanged


def compare_cases(
    cohort: Cohort,
    measured: Sequence[MeasuredCase],
    training: Sequence[Case],
    allow_unsupervised: Sequence[str] = (),
) -> Iterator[Finding]:
    """What only several cases together show.

    In the training cases every class has to be drawn, apart from those in `allow_unsupervised`.
    """
    for group in group_cases(measured):
        yield from find_outliers(group)
        yield from check_alignment(group)
    yield from find_duplicates(measured)
    yield from check_sides(measured)
    names = {case.name for case in training}
    trained = [case for case in measured if case.name in names]
    # Where some files cannot be read, the classes in them are not known.
    if trained and len(measured) == len(cohort.cases):
        yield from _check_classes(trained, cohort, allow_unsupervised)


def _read_facts(
    cases: Sequence[Case], numbers: Sequence[int], jobs: int
) -> Iterator[tuple[int, CaseFacts]]:
    """Facts by number, in their order."""
    if not numbers:
        return
    # Imported late: importing SciPy takes longer than comparing cases whose facts are kept.
    from hsf_finetune.check.check_case import check_case

    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        try:
            for start in range(0, len(numbers), _AT_ONCE):
                part = numbers[start : start + _AT_ONCE]
                facts = pool.map(check_case, [cases[n] for n in part])
                yield from zip(part, facts, strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_classes(
    trained: Sequence[MeasuredCase], cohort: Cohort, allow_unsupervised: Sequence[str]
) -> Iterator[Finding]:
    """Classes that no training case, or only few of them, show."""
    counted = ((case.case, np.array(case.facts.read_measures().row_voxels)) for case in trained)
    census = take_census(counted, cohort.classes)
    folder = str(trained[0].case.label.path.parent)
    try:
        check_census(census, allow_unsupervised)
    except DataError as error:
        yield Finding.refusal(error, "set/class never drawn", folder)
    if census.apart:
        yield warn_about(folder, "")(
            "set/never together",
            f"no dataset draws {shorten_list([f'{a} beside {b}' for a, b in census.apart])}",
            found="where one is drawn the other is unannotated",
            fix="draw both in a few cases: training learns little about which of them a voxel is, "
            "and validation cannot see it",
        )
    for name in cohort.classes.foreground:
        count = sum(max(row.exact_cases, row.set_cases) for row in census.of_class(name))
        if 0 < count < min(FEW_CASES, len(trained)):
            yield warn_about(folder, "")(
                "set/rare class",
                f"few training cases show {name}",
                found=f"{count} of {len(trained)}",
                expected=f"{FEW_CASES} or more",
                fix="draw it in more cases, or make sure that those cases train (split_file:)",
            )
