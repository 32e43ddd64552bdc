"""The check of a run's data, as a command and before every training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hsf_finetune.check.check_cohort import check_cases, compare_cases
from hsf_finetune.check.check_report import CheckReport
from hsf_finetune.check.check_source import compare_with_source, summarise_data
from hsf_finetune.check.data_overview import describe_data
from hsf_finetune.check.findings import (
    TIERS,
    UNPAIRED,
    Finding,
    findings_of_tier,
    flatten_errors,
    group_findings,
    group_text,
)
from hsf_finetune.check.measured_cases import select_measured
from hsf_finetune.config.settings import Preprocessing, Settings
from hsf_finetune.data.census import classes_without_labels
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.discovery.cases import Case, Cohort, discover
from hsf_finetune.data.preprocessing.choose_preprocessing import (
    KnownPreprocessing,
    choose_preprocessing,
)
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.labels.similar_names import warn_similar_names
from hsf_finetune.system.console import progress, say
from hsf_finetune.system.errors import SeveralErrors, UserError
from hsf_finetune.system.processes import is_main_process

if TYPE_CHECKING:
    from hsf_finetune.weights.files.checkpoint import Checkpoint

ReadWeights: TypeAlias = "Callable[[Settings, Cohort], Checkpoint | None]"
"""Reads the pretrained weights of a run; None where it has none."""

_PRINTED_WARNINGS = 5
"""Kinds of warnings that are printed before a run."""


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
    weights = (
        read_weights(settings, cohort) if read_weights and has_local_weights(settings) else None
    )
    report = _check(settings, cohort, training, weights, jobs)
    datasets = settings.datasets.datasets
    similar = [
        Finding("warned", "set/similar names", line, root, fix="see label_sets in docs/labels.md")
        for line in warn_similar_names(datasets, settings.models, cohort.classes)
    ]
    return replace(report, findings=(*refused, *similar, *report.findings))


def check_before_training(
    settings: Settings,
    cohort: Cohort,
    split: Split,
    weights: Checkpoint | None,
    how: Preprocessing,
) -> CheckReport | None:
    """The same check before a run; None where `check=off`, and in a run's further processes.

    Raises:
        SeveralErrors: the data cannot be used as they are; every reason at once.
    """
    if settings.check == "off" or not is_main_process():
        return None
    report = _check(settings, cohort, split.train, weights, None, how)
    wrong = findings_of_tier(report.findings, "refused")
    warned = findings_of_tier(report.findings, "warned")
    if settings.check == "strict":
        wrong += warned
    if wrong:
        raise SeveralErrors(_title(wrong, cohort), [finding.error() for finding in wrong])
    say(f"check: {report.summary_line()}")
    groups = group_findings(warned)
    for group in groups[:_PRINTED_WARNINGS]:
        say("  " + group_text(group).replace("\n", "\n  "))
    if len(groups) > _PRINTED_WARNINGS:
        say(
            f"  ... and {len(groups) - _PRINTED_WARNINGS} more kinds; hsf-finetune check, with the "
            "same overrides, shows and draws all of them"
        )
    return report


def _check(
    settings: Settings,
    cohort: Cohort,
    training: Sequence[Case],
    weights: Checkpoint | None,
    jobs: int | None,
    how: Preprocessing | None = None,
) -> CheckReport:
    with progress("checking cases") as tick:
        facts, unchanged = check_cases(cohort.cases, jobs, tick)
    measured = select_measured(cohort.cases, facts)
    findings = [finding for fact in facts for finding in fact.findings]
    findings += compare_cases(cohort, measured, training, classes_without_labels(settings, cohort))
    findings.sort(key=lambda finding: (finding.case, finding.kind))
    findings += [
        Finding("warned", UNPAIRED, entry.reason, str(entry.path), fix=entry.fix)
        for entry in cohort.others
        if entry.fix
    ]
    names = {case.name for case in training}
    target = summarise_data([case for case in measured if case.name in names])
    source = _source_summary(weights) if weights else None
    if weights and source and target:
        if how is None:
            known = KnownPreprocessing(weights.preprocessing)
            how = choose_preprocessing(settings, training, cohort.channels, known).value
        known_spacing = weights.preprocessing and weights.preprocessing.spacing_mm
        findings += [
            finding
            for finding in compare_with_source(target, source, str(weights.path), how.spacing_mm)
            if not (known_spacing and finding.kind == "source/spacing")  # it is said of them
        ]
    findings.sort(key=lambda finding: TIERS.index(finding.tier))
    return CheckReport(
        tuple(findings),
        len(cohort.cases),
        unchanged,
        target,
        source,
        cohort,
        tuple(facts),
        describe_data(cohort, measured),
    )


def has_local_weights(settings: Settings) -> bool:
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
