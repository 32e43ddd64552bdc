"""What the check leaves behind: check.json, a ledger of every file, tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from hsf_finetune.check.findings import TIERS, Finding
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.system import console
from hsf_finetune.system.files import write_csv, write_json

if TYPE_CHECKING:
    from hsf_finetune.check.check_cohort import Look
    from hsf_finetune.data.discovery.cases import Cohort

CHECK_JSON = "check.json"
LEDGER = "ledger.csv"
PICTURES = "pictures"

_STYLE = {"refused": "bold red", "warned": "yellow", "repaired": "green"}
_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a check comes to, whether it looked just now or an earlier look still stands.

    Args:
        findings: of files, set and source model, the gravest first.
        cases: how many were looked at; 0 where the files do not fit the description.
        known: how many of them had not changed since an earlier look.
        here: summary of the data.
        source: summary of what the source model was trained on, if there is one.
    """

    findings: tuple[Finding, ...]
    cases: int = 0
    known: int = 0
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

    def line(self) -> str:
        """One line on the whole."""
        cases = f"{self.cases} cases" if self.cases else "no case could be looked at"
        known = f" ({self.known} unchanged since the last look)" if self.cases else ""
        counts = ", ".join(f"{self.count(tier)} {tier}" for tier in TIERS if self.count(tier))
        return f"{cases}{known}: {counts or 'nothing to remark'}"


@dataclass(frozen=True, eq=False)
class Report(Outcome):
    """The outcome with what it was found in.

    Args:
        cohort: the cases; None where the files do not fit the dataset's description.
        look: what was seen of them.
    """

    cohort: Cohort | None = None
    look: Look | None = None

    def to_dict(self) -> dict[str, Any]:
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
            "data": self.here.to_dict() if self.here else None,
            "source": self.source.to_dict() if self.source else None,
        }


def read_outcome(folder: Path) -> Outcome:
    """The outcome that a check left in its folder, whose cases have not changed since.

    Raises:
        OSError, KeyError, TypeError, ValueError: there is none, or it is damaged.
    """
    text = (folder / CHECK_JSON).read_text(encoding="utf-8", errors="surrogateescape")
    plain = json.loads(text)
    cases = len(plain["cases"])
    here, source = (
        DataSummary.from_dict(plain[key]) if plain[key] else None for key in ("data", "source")
    )
    findings = tuple(Finding(**found) for found in plain["findings"])
    return Outcome(findings, cases, cases, here, source)


def write_report(folder: Path, report: Report) -> None:
    """Writes check.json and, where the cases are known, ledger.csv.

    Raises:
        OutputError: they cannot be written.
    """
    write_json(folder / CHECK_JSON, report.to_dict())
    if report.cohort is not None:
        _write_ledger(folder / LEDGER, report.cohort, report.findings)


def findings_table(findings: Sequence[Finding]) -> Table:
    """What was found how often, with examples."""
    table = console.TitledTable()
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
    table = console.TitledTable()
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
    keys = {ref.path: str(ref) for case in cohort.cases for ref in case.volumes}
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
