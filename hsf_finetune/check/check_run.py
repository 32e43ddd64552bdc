"""The look at a run's data that gives a report, by itself and before every training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsf_finetune.check.check_cohort import look_at
from hsf_finetune.check.check_report import Report
from hsf_finetune.check.check_source import source_findings, summarise_data
from hsf_finetune.check.findings import TIERS, Finding, of_tier, singly
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.system.console import progress, say
from hsf_finetune.system.errors import SeveralErrors, UserError
from hsf_finetune.system.processes import is_main_process

if TYPE_CHECKING:
    from hsf_finetune.weights.files.checkpoint import Checkpoint

_BEFORE_TRAINING = 5
"""Warnings that are printed in full before a run."""


def report_on(settings: Settings, jobs: int | None = None) -> Report:
    """The report of a configuration, whatever is wrong with its files."""
    root = settings.datasets.main_path
    try:
        cohort = discover(settings.datasets, settings.models)
    except UserError as error:
        found = [Finding.refusal(one, "set/files", root) for one in singly(error)]
        return Report(tuple(found))
    split, trouble = None, []
    try:
        split = split_cases(cohort.cases, settings.datasets, settings.seed)
    except UserError as error:
        trouble = [Finding.refusal(one, "set/split", root) for one in singly(error)]
    source, path = _source(settings, cohort)
    report = _report(settings, cohort, split, source, path, jobs)
    return replace(report, findings=(*trouble, *report.findings))


def check_before_training(
    settings: Settings, cohort: Cohort, split: Split, source: Checkpoint | None
) -> Report | None:
    """The same look before a run; None where `check=off`, and in a run's further processes.

    Args:
        settings: of the run.
        cohort: its cases.
        split: who trains.
        source: the pretrained weights, if any.

    Raises:
        SeveralErrors: what has to be mended first, all at once.
    """
    if settings.check == "off" or not is_main_process():
        return None
    summary = None if source is None else _summary_of(source.meta)
    report = _report(settings, cohort, split, summary, str(source.path) if source else "", None)
    wrong = of_tier(report.findings, "refused")
    if settings.check == "strict":
        wrong = of_tier(report.findings, "refused", "warned")
    if wrong:
        raise SeveralErrors(_title(wrong, cohort), [finding.error() for finding in wrong])
    say(f"check: {report.line()}")
    warned = of_tier(report.findings, "warned")
    for finding in warned[:_BEFORE_TRAINING]:
        say(f"  {finding.what}: {finding.file}")
        if finding.found:
            say(f"    found {'; '.join(finding.found.splitlines())}")
        if finding.fix:
            say(f"    {finding.fix}")
    if len(warned) > _BEFORE_TRAINING:
        say(
            f"  ... and {len(warned) - _BEFORE_TRAINING} more; hsf-finetune check, with the same "
            "overrides, shows and draws all of them"
        )
    return report


# -------------------------------------------------------------------- internals
def _report(
    settings: Settings,
    cohort: Cohort,
    split: Split | None,
    source: DataSummary | None,
    source_path: str,
    jobs: int | None,
) -> Report:
    training = split.train if split else cohort.cases
    data = settings.datasets
    with progress("checking cases") as tick:
        look = look_at(cohort, jobs, tick, training, data.allow_unsupervised)
    here = summarise_data(look.members(training))
    findings = [*look.findings]
    if source is not None and here is not None:
        findings += source_findings(source, here, source_path, data.target_spacing_mm)
    findings.sort(key=lambda finding: TIERS.index(finding.tier))
    return Report(tuple(findings), len(look.cases), look.known, here, source, cohort, look)


def _source(settings: Settings, cohort: Cohort) -> tuple[DataSummary | None, str]:
    """What the pretrained weights say of their data, where they are a file or a run here."""
    name = settings.finetuning.pretrained
    if name in (None, "none", "demo") or not Path(str(name)).expanduser().exists():
        return None, ""
    # Imported late: PyTorch takes longer to import than unchanged data to check.
    from hsf_finetune.planning.start import find_source

    found = find_source(settings, cohort, lambda: Path())
    return (_summary_of(found.checkpoint.meta), str(name)) if found else (None, "")


def _summary_of(meta: Mapping[str, Any] | None) -> DataSummary | None:
    """The summary in a checkpoint's remarks; None where an older or foreign one has none."""
    try:
        return DataSummary.from_dict(meta["data"]) if meta and meta.get("data") else None
    except (KeyError, TypeError, ValueError):
        return None


def _title(wrong: Sequence[Finding], cohort: Cohort) -> str:
    cases = {finding.case for finding in wrong if finding.case}
    if all(finding.case for finding in wrong):
        return f"{len(cases)} of {len(cohort.cases)} cases cannot be used:"
    return "the data cannot be used as they are:"
