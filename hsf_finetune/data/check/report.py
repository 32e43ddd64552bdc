"""What the check leaves behind: check.json, a ledger of every file, tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hsf_finetune.data.cases import Cohort
from hsf_finetune.data.check.findings import TIERS, Finding
from hsf_finetune.data.check.look import Look
from hsf_finetune.data.check.source import DataSummary
from hsf_finetune.files import write_csv, write_json

_STYLE = {"refused": "bold red", "warned": "yellow", "repaired": "green"}
_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that the check found.

    Args:
        findings: of files, set and source model, the gravest first.
        cohort: the cases; None where the files do not fit the dataset's description.
        look: what was seen of them.
        here: summary of the data.
        source: summary of what the source model was trained on, if there is one.
    """

    findings: tuple[Finding, ...]
    cohort: Cohort | None = None
    look: Look | None = None
    here: DataSummary | None = None
    source: DataSummary | None = None

    def count(self, tier: str) -> int:
        """How many findings are of a tier."""
        return sum(finding.tier == tier for finding in self.findings)

    def exit_code(self, strict: bool) -> int:
        """2 if anything is refused, 1 if strict and anything is warned, else 0."""
        if self.count("refused"):
            return 2
        return 1 if strict and self.count("warned") else 0

    def plain(self) -> dict[str, Any]:
        """The report as plain types."""
        return {
            "counts": {tier: self.count(tier) for tier in TIERS},
            "findings": [asdict(finding) for finding in self.findings],
            "cases": [
                {
                    "case": case.name,
                    "subject": case.subject,
                    "dataset": case.dataset,
                    "images": [str(ref) for ref in case.images],
                    "label": str(case.label),
                    "measured": asdict(facts.measured) if facts.measured else None,
                }
                for case, facts in zip(self.look.cases, self.look.facts, strict=True)
            ]
            if self.look
            else [],
            "data": self.here.plain() if self.here else None,
            "source": self.source.plain() if self.source else None,
        }

    def lines(self) -> list[str]:
        """One line on the whole."""
        cases = f"{len(self.look.cases)} cases" if self.look else "no case could be looked at"
        known = f" ({self.look.known} unchanged since the last look)" if self.look else ""
        counts = ", ".join(f"{self.count(tier)} {tier}" for tier in TIERS if self.count(tier))
        return [f"{cases}{known}: {counts or 'nothing to remark'}"]


def write_report(folder: Path, report: Report) -> None:
    """Writes check.json and, where the cases are known, ledger.csv.

    Raises:
        OutputError: they cannot be written.
    """
    write_json(folder / "check.json", report.plain())
    if report.cohort is not None:
        _write_ledger(folder / "ledger.csv", report.cohort, report.findings)


def findings_table(findings: Sequence[Finding]) -> Table:
    """What was found how often, with examples."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("tier", "files", "what", "such as"):
        table.add_column(name, justify="right" if name == "files" else "left")
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.tier, finding.what), []).append(finding)
    for (tier, what), same in kinds.items():
        names = list(dict.fromkeys(f.case or Path(f.file).name for f in same))
        more = f", {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
        table.add_row(
            Text(tier, style=_STYLE[tier]),
            str(len(same)),
            Text(what),
            Text(", ".join(names[:_EXAMPLES]) + more),
        )
    return table


def source_table(here: DataSummary, source: DataSummary) -> Table:
    """The data beside what the source model was trained on."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("", "these data", "source model"):
        table.add_column(name)
    both = (here, source)
    rows = {
        "cases": [str(one.cases) for one in both],
        "voxel size, mm": [" x ".join(f"{n:.3g}" for n in one.spacing_mm) for one in both],
        "size, voxels": [" x ".join(str(n) for n in one.size_vox) for one in both],
        "contrast to surroundings, SD": [
            "-" if one.contrast is None else f"{one.contrast:+.2f}" for one in both
        ],
    }
    for name in dict.fromkeys((*here.profile, *source.profile)):
        rows[f"brightness of {name}, SD"] = [
            f"{one.profile[name]:+.2f}" if name in one.profile else "-" for one in both
        ]
    for title, cells in rows.items():
        table.add_row(Text(title), *cells)
    return table


def _write_ledger(path: Path, cohort: Cohort, findings: Sequence[Finding]) -> None:
    """One line per file: its fate, and what the check says of it."""
    said: dict[str, list[Finding]] = {}
    for finding in findings:
        said.setdefault(finding.file, []).append(finding)
    keys = {ref.path: str(ref) for case in cohort.cases for ref in (*case.images, case.label)}
    rows = []
    for entry in cohort.ledger:
        own = said.get(str(entry.path), []) or said.get(keys.get(entry.path, ""), [])
        own = [finding for finding in own if finding.case in ("", entry.case)]
        tier = next((t for t in TIERS if any(f.tier == t for f in own)), "clean")
        rows.append(
            (
                entry.path,
                entry.fate,
                entry.case,
                entry.subject,
                tier if entry.case else "not read",
                "; ".join([entry.reason] * bool(entry.reason) + [f.what for f in own]),
            )
        )
    write_csv(path, ("file", "fate", "case", "subject", "check", "reason"), rows)
