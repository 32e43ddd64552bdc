"""The check of the data: as a command, and before every training run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsf_finetune.data.cases import Cohort, discover
from hsf_finetune.data.check.findings import TIERS, Finding, of_tier, singly
from hsf_finetune.data.check.look import look_at
from hsf_finetune.data.check.report import (
    Report,
    findings_table,
    source_table,
    write_report,
)
from hsf_finetune.data.check.source import DataSummary, source_findings, summarise_data
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.errors import ConfigError, OutputError, SeveralErrors, UserError
from hsf_finetune.processes import follower
from hsf_finetune.settings import Settings
from hsf_finetune.terminal import console, progress, say

if TYPE_CHECKING:
    from hsf_finetune.weights.checkpoint import Checkpoint

_SPELT_OUT = 25
"""Findings that are printed in full; check.json has all of them."""
_BEFORE_TRAINING = 5


def check(
    given: Sequence[str],
    *,
    config_dir: Path | None = None,
    output: Path | None = None,
    jobs: int | None = None,
    strict: bool = False,
) -> int:
    """Looks at the data of a run and writes a report.

    Args:
        given: overrides as on the command line of finetune.py, or one dataset YAML and
            overrides.
        config_dir: folder with the user's own groups.
        output: folder of the report; None is a new one below datasets.output_path.
        jobs: threads; None is one for each CPU that this process may use.
        strict: whether warnings count.

    Returns:
        0 if the data are fine, 1 for warnings if strict, 2 if they cannot be used.

    Raises:
        UserError: the configuration is wrong, or the report cannot be written.
    """
    from hsf_finetune.configuration import compose

    with _dataset_yaml(given, config_dir) as (overrides, where):
        settings = compose("finetune", overrides, where)
    folder = _report_folder(settings, output)
    if settings.datasets.generate:
        from hsf_finetune.run import make_data

        make_data(settings)
    report = report_on(settings, jobs)
    write_report(folder, report)
    pictures = 0
    if report.look is not None and report.exit_code(strict=True):
        from hsf_finetune.data.check.pictures import draw_flagged

        with progress("drawing flagged cases") as tick:
            pictures = draw_flagged(folder / "pictures", report.look.cases, report.findings, tick)
    _show(report, folder, pictures)
    if report.exit_code(strict=False) == 0:
        if settings.finetuning.pretrained in (None, "none"):
            say(
                "hsf-finetune advise, with finetuning.pretrained=PATH, says which settings suit them"
            )
        else:
            show_advice(settings, report)
    return report.exit_code(strict or settings.check == "strict")


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
    return Report((*trouble, *report.findings), cohort, report.look, report.here, report.source)


def show_advice(settings: Settings, report: Report) -> None:
    """Says which settings suit the data and the weights, and why.

    Args:
        settings: as they are so far.
        report: of the check of the same settings.

    Raises:
        UserError: the data or the weights cannot be used as they are.
    """
    # Imported late: PyTorch takes longer to import than unchanged data to check.
    from hsf_finetune.run import pretrained_source
    from hsf_finetune.situation import advise

    source = pretrained_source(settings, report.cohort) if report.cohort else None
    for one in advise(settings, report, source):
        for line in one.lines():
            say(line)


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
    if settings.check == "off" or follower():
        return None
    summary = None if source is None else _summary_of(source.meta)
    report = _report(settings, cohort, split, summary, str(source.path) if source else "", None)
    wrong = of_tier(report.findings, "refused")
    if settings.check == "strict":
        wrong = of_tier(report.findings, "refused", "warned")
    if wrong:
        raise SeveralErrors(_title(wrong, cohort), [finding.error() for finding in wrong])
    for line in report.lines():
        say(f"check: {line}")
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
    return Report(tuple(findings), cohort, look, here, source)


def _source(settings: Settings, cohort: Cohort) -> tuple[DataSummary | None, str]:
    """What the pretrained weights say of their data, where they are a file or a run here."""
    name = settings.finetuning.pretrained
    if name in (None, "none", "demo") or not Path(str(name)).expanduser().exists():
        return None, ""
    # Imported late: PyTorch takes longer to import than unchanged data to check.
    from hsf_finetune.starting_point import find_source

    found = find_source(settings, cohort, lambda: Path())
    return (_summary_of(found.checkpoint.meta), str(name)) if found else (None, "")


def _summary_of(meta: Mapping[str, Any] | None) -> DataSummary | None:
    """The summary in a checkpoint's remarks; None where an older or foreign one has none."""
    try:
        return DataSummary.of(meta["data"]) if meta and meta.get("data") else None
    except (KeyError, TypeError, ValueError):
        return None


@contextmanager
def _dataset_yaml(
    given: Sequence[str], config_dir: Path | None
) -> Iterator[tuple[list[str], Path | None]]:
    """Overrides and folder that mean the dataset YAML, where one is given as a file."""
    files = [one for one in given if "=" not in one]
    rest = [one for one in given if "=" in one]
    if not files:
        yield rest, config_dir
        return
    file = Path(files[0]).expanduser()
    if len(files) > 1 or config_dir is not None or file.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            "check takes overrides, or one dataset YAML and overrides",
            found=" ".join([*files, *(["--config-dir"] if config_dir else [])]),
            expected="hsf-finetune check datasets=custom, or hsf-finetune check my.yaml",
        )
    if not file.is_file():
        raise ConfigError("no such dataset YAML", file=file)
    if file.parent.name == "datasets" and file.suffix == ".yaml":
        yield [f"datasets={file.stem}", *rest], file.parent.parent
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "datasets" / "given.yaml"
        copy.parent.mkdir()
        copy.write_bytes(file.read_bytes())
        yield ["datasets=given", *rest], Path(folder)


def _report_folder(settings: Settings, output: Path | None) -> Path:
    """Where the report goes: a new folder, or one that holds an earlier report."""
    if output is None:
        root = Path(settings.datasets.output_path).expanduser()
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}_check_{'_'.join(settings.datasets.datasets)}"
        names = (stem if n == 1 else f"{stem}_{n}" for n in range(1, 1000))
        return next(root / name for name in names if not (root / name).exists())
    if output.exists() and not (output / "check.json").exists():
        if not output.is_dir() or any(output.iterdir()):
            raise OutputError(
                "the folder for the report is in use",
                file=output,
                fix="give a new folder with -o, or that of an earlier check",
            )
    elif output.exists():
        for picture in (output / "pictures").glob("*.png"):
            picture.unlink()
    return output


def _show(report: Report, folder: Path, pictures: int) -> None:
    spelt = of_tier(report.findings, "refused", "warned")
    for finding in spelt[:_SPELT_OUT]:
        say(f"{finding.tier}: {finding.error()}")
    if len(spelt) > _SPELT_OUT:
        say(f"... and {len(spelt) - _SPELT_OUT} more in check.json")
    if report.findings:
        console.print(findings_table(report.findings))
    if report.here is not None and report.source is not None:
        console.print(source_table(report.here, report.source))
    for line in report.lines():
        say(line)
    drawn = f", {pictures} pictures" if pictures else ""
    say(f"report: {folder} (check.json, ledger.csv{drawn})")


def _title(wrong: Sequence[Finding], cohort: Cohort) -> str:
    cases = {finding.case for finding in wrong if finding.case}
    if all(finding.case for finding in wrong):
        return f"{len(cases)} of {len(cohort.cases)} cases cannot be used:"
    return "the data cannot be used as they are:"
