"""The report of a check, printed and in its folder: check.json, a ledger of files, pictures."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from hsf_finetune.check.findings import (
    TIERS,
    UNPAIRED,
    Finding,
    Tier,
    findings_of_tier,
    group_findings,
    group_text,
)
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.system.atomic_files import first_free, write_csv, write_json
from hsf_finetune.system.console import TitledTable, console, count_of, say
from hsf_finetune.system.errors import OutputError
from hsf_finetune.system.run_folder import LEDGER

if TYPE_CHECKING:
    from hsf_finetune.check.kept_facts import KeptFacts
    from hsf_finetune.data.discovery.cases import Cohort

CHECK_JSON = "check.json"
PICTURES = "pictures"
_PRINTED = 25
"""Kinds of findings that are printed; check.json has all of them."""


@dataclass(frozen=True, eq=False)
class CheckReport:
    """What a check found.

    Args:
        findings: of files, cases and source model, the most serious first.
        case_count: number of cases; 0 where the files do not fit the dataset's description.
        unchanged: number of cases that had not changed since an earlier check.
        target: summary of the data that train.
        source: summary of the data that the source model was trained on, if it has one.
        cohort: the cases; None where they are not known, or the report was read from a file.
        facts: of each case of the cohort.
        overview: what the check saw, as lines to print.
    """

    findings: tuple[Finding, ...]
    case_count: int = 0
    unchanged: int = 0
    target: DataSummary | None = None
    source: DataSummary | None = None
    cohort: Cohort | None = None
    facts: tuple[KeptFacts, ...] = ()
    overview: tuple[str, ...] = ()

    def count(self, tier: Tier) -> int:
        """How many findings are of a tier."""
        return len(findings_of_tier(self.findings, tier))

    def exit_code(self, strict: bool) -> int:
        """2 if anything is refused; 1 if files lack a partner, or if strict and warned; else 0."""
        if self.count("refused"):
            return 2
        unpaired = any(finding.kind == UNPAIRED for finding in self.findings)
        return 1 if unpaired or (strict and self.count("warned")) else 0

    def summary_line(self) -> str:
        """The number of cases and of findings in one line."""
        counts = ", ".join(f"{self.count(tier)} {tier}" for tier in TIERS if self.count(tier))
        if not self.case_count:
            return f"no case could be checked: {counts}"
        unchanged = f"{self.unchanged} unchanged since the last check"
        return f"{count_of(self.case_count, 'case')} ({unchanged}): {counts or 'no findings'}"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain types, for check.json; its cases are made one at a time."""
        cases = self.cohort.cases if self.cohort else ()
        return {
            "counts": {tier: self.count(tier) for tier in TIERS},
            "overview": self.overview,
            "findings": [asdict(finding) for finding in self.findings],
            "cases": (
                {
                    "case": case.name,
                    "subject": case.subject,
                    "dataset": case.dataset,
                    "images": [str(ref) for ref in case.images],
                    "label": str(case.label),
                    "measured": fact.read_measures().to_dict() if fact.is_measured else None,
                }
                for case, fact in zip(cases, self.facts, strict=True)
            ),
            "data": self.target.to_dict() if self.target else None,
            "source": self.source.to_dict() if self.source else None,
        }


def restore_report(plain: Mapping[str, Any]) -> CheckReport:
    """The report without its cohort; no case has changed since it was made.

    Args:
        plain: as from `to_dict`, with the number of cases in place of the cases.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    count = int(plain["cases"])
    data, source = (
        DataSummary.from_dict(d) if (d := plain[k]) else None for k in ("data", "source")
    )
    findings = tuple(Finding(**found) for found in plain["findings"])
    overview = tuple(plain["overview"])
    return CheckReport(findings, count, count, data, source, overview=overview)


def write_report(folder: Path, report: CheckReport) -> None:
    """Writes check.json and, where the cases are known, ledger.csv.

    Raises:
        OutputError: they cannot be written.
    """
    write_json(folder / CHECK_JSON, report.to_dict())
    if report.cohort is not None:
        _write_ledger(folder / LEDGER, report.cohort, report.findings)


def report_folder(parent: Path, name: str, output: Path | None) -> Path:
    """The folder that the user chose, without old pictures, or a new `parent/TIME_name`.

    Raises:
        OutputError: the chosen folder holds other files.
    """
    if output is None:
        name = re.sub(r"[^\w.-]+", "_", name)[:100]  # of datasets, which may hold any text
        return first_free(parent.expanduser() / f"{time.strftime('%Y%m%d-%H%M%S')}_{name}")
    if (output / CHECK_JSON).exists():
        for picture in list_pictures(output):
            picture.unlink()
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(
            "the folder for the report is in use",
            file=output,
            fix="give a new folder with -o, or that of an earlier check",
        )
    return output


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a report."""
    return sorted((folder / PICTURES).glob("*.png"))


def show_report(report: CheckReport, folder: Path) -> None:
    """Prints what was seen, the findings, the data beside those of the source model, and where the report is."""
    for line in report.overview:
        say(line)
    groups = group_findings(report.findings)
    for group in groups[:_PRINTED]:
        say(group_text(group))
    if len(groups) > _PRINTED:
        say(f"... and {len(groups) - _PRINTED} more kinds of findings in {CHECK_JSON}")
    if report.target is not None and report.source is not None:
        console.print(source_table(report.target, report.source))
    say(report.summary_line())
    count = len(list_pictures(folder))
    pictures = f", {count_of(count, 'picture')}" if count else ""
    say(f"report: {folder} ({CHECK_JSON}, {LEDGER}{pictures})")


def source_table(target: DataSummary, source: DataSummary) -> Table:
    """The data beside those that the source model was trained on."""
    table = TitledTable()
    for name in ("", "these data", "source model"):
        table.add_column(name)
    both = (target, source)
    rows = {
        "cases": [str(one.cases) for one in both],
        "voxel size, mm": [" x ".join(f"{n:.3g}" for n in one.spacing_mm) for one in both],
        "size, voxels": [" x ".join(str(n) for n in one.size_vox) for one in both],
        "contrast to surroundings, SD": [
            "-" if one.contrast is None else f"{one.contrast:+.2f}" for one in both
        ],
    }
    for name in dict.fromkeys((*target.profile, *source.profile)):
        rows[f"brightness of {name}, SD"] = [
            f"{one.profile[name]:+.2f}" if name in one.profile else "-" for one in both
        ]
    for title, cells in rows.items():
        table.add_row(Text(title), *cells)
    return table


def _write_ledger(path: Path, cohort: Cohort, findings: Sequence[Finding]) -> None:
    """One line per file: its status, and what the check found in it."""
    header = ("file", "fate", "case", "subject", "check", "reason")
    write_csv(path, header, _ledger_rows(cohort, findings))


def _ledger_rows(cohort: Cohort, findings: Sequence[Finding]) -> Iterator[tuple[object, ...]]:
    by_file: dict[str, list[Finding]] = {}
    for finding in findings:
        by_file.setdefault(finding.file, []).append(finding)
    keyed = {ref.path: str(ref) for case in cohort.cases for ref in case.volumes if ref.key}
    for entry in cohort.ledger():
        found = by_file.get(str(entry.path)) or by_file.get(keyed.get(entry.path, ""), [])
        found = [finding for finding in found if finding.case in ("", entry.case)]
        tier = next((t for t in TIERS if findings_of_tier(found, t)), "clean")
        status = tier if entry.case else "not read"
        texts = dict.fromkeys([entry.reason, *(finding.what for finding in found)])
        reasons = "; ".join(filter(None, texts))
        yield entry.path, entry.status, entry.case, entry.subject, status, reasons
