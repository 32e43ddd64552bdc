"""The check of a run's data, as a command and before every training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hsf_finetune.check.check_cohort import check_cases, compare_cases
from hsf_finetune.check.check_report import CheckReport
from hsf_finetune.check.check_source import compare_with_source, summarise_data
from hsf_finetune.check.findings import TIERS, Finding, findings_of_tier, flatten_errors
from hsf_finetune.check.measured_cases import select_measured
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.discovery.cases import Case, Cohort, discover
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.system.console import progress, say
from hsf_finetune.system.errors import SeveralErrors, UserError
from hsf_finetune.system.processes import is_main_process

if TYPE_CHECKING:
    from hsf_finetune.weights.files.checkpoint import Checkpoint

ReadWeights: TypeAlias = "Callable[[Settings, Cohort], Checkpoint | None]"
"""Reads the pretrained weights of a run; None where it has none."""

_PRINTED_WARNINGS = 5
"""Warnings that are printed in full before a run."""


def check_data(
    settings: Settings, read_weights: ReadWeights | None = None, jobs: int | None = None
) -> CheckReport:
    """Checks the data of a configuration; whatever is wrong with the files is in the report.

    Args:
        settings: of a run.
        read_weights: called if the pretrained weights are a file or a run folder of this
            machine, to compare the data with those that they were trained on.
        jobs: threads; None is one for each CPU that this process may use.

    Raises:
        UserError: the weights cannot be read.
    """
    root = settings.datasets.main_path
    try:
        cohort = discover(settings.datasets, settings.models)
    except UserError as error:
        found = [Finding.refusal(one, "set/files", root) for one in flatten_errors(error)]
        return CheckReport(tuple(found))
    training, refused = cohort.cases, []
    try:
        training = split_cases(cohort.cases, settings.datasets, settings.seed).train
    except UserError as error:
        refused = [Finding.refusal(one, "set/split", root) for one in flatten_errors(error)]
    weights = read_weights(settings, cohort) if read_weights and _has_local(settings) else None
    report = _check(settings, cohort, training, weights, jobs)
    return replace(report, findings=(*refused, *report.findings))


def check_before_training(
    settings: Settings, cohort: Cohort, split: Split, weights: Checkpoint | None
) -> CheckReport | None:
    """The same check before a run; None where `check=off`, and in a run's further processes.

    Raises:
        SeveralErrors: the data cannot be used as they are; every reason at once.
    """
    if settings.check == "off" or not is_main_process():
        return None
    report = _check(settings, cohort, split.train, weights, None)
    wrong = findings_of_tier(report.findings, "refused")
    warned = findings_of_tier(report.findings, "warned")
    if settings.check == "strict":
        wrong += warned
    if wrong:
        raise SeveralErrors(_title(wrong, cohort), [finding.error() for finding in wrong])
    say(f"check: {report.summary_line()}")
    for finding in warned[:_PRINTED_WARNINGS]:
        say(f"  {finding.what}: {finding.file}")
        if finding.found:
            say(f"    found {'; '.join(finding.found.splitlines())}")
        if finding.fix:
            say(f"    {finding.fix}")
    if len(warned) > _PRINTED_WARNINGS:
        say(
            f"  ... and {len(warned) - _PRINTED_WARNINGS} more; hsf-finetune check, with the same "
            "overrides, shows and draws all of them"
        )
    return report


def _check(
    settings: Settings,
    cohort: Cohort,
    training: Sequence[Case],
    weights: Checkpoint | None,
    jobs: int | None,
) -> CheckReport:
    data = settings.datasets
    with progress("checking cases") as tick:
        facts, unchanged = check_cases(cohort.cases, jobs, tick)
    measured = select_measured(cohort.cases, facts)
    findings = [finding for fact in facts for finding in fact.findings]
    findings += compare_cases(cohort, measured, training, data.allow_unsupervised)
    findings.sort(key=lambda finding: (finding.case, finding.kind))
    names = {case.name for case in training}
    target = summarise_data([case for case in measured if case.name in names])
    source = _source_summary(weights) if weights else None
    if weights and source and target:
        findings += compare_with_source(target, source, str(weights.path), data.target_spacing_mm)
    findings.sort(key=lambda finding: TIERS.index(finding.tier))
    count = len(cohort.cases)
    return CheckReport(tuple(findings), count, unchanged, target, source, cohort, tuple(facts))


def _has_local(settings: Settings) -> bool:
    """Whether the pretrained weights are a file or a folder: nothing is fetched for a check."""
    name = settings.weights.pretrained
    return name not in (None, "none", "demo") and Path(str(name)).expanduser().exists()


def _source_summary(weights: Checkpoint) -> DataSummary | None:
    """The summary in a checkpoint; None where an older or foreign one has none."""
    try:
        return DataSummary.from_dict((weights.meta or {})["data"])
    except (KeyError, TypeError, ValueError):
        return None


def _title(wrong: Sequence[Finding], cohort: Cohort) -> str:
    cases = {finding.case for finding in wrong}
    if "" in cases:
        return "the data cannot be used as they are:"
    return f"{len(cases)} of {len(cohort.cases)} cases cannot be used:"
