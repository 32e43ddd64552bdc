"""The report of a check in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from hsf_finetune.check.check_report import CHECK_JSON, LEDGER, CheckReport, list_pictures
from hsf_finetune.check.findings import Finding, findings_of_tier
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.system.console import TitledTable, console, count_of, say

_PRINTED = 25
"""Findings that are printed in full; check.json has all of them."""
_EXAMPLES = 3
_STYLE = {"refused": "bold red", "warned": "yellow", "repaired": "green"}


def show_report(report: CheckReport, folder: Path) -> None:
    """Prints the findings, the data beside those of the source model, and where the report is."""
    serious = findings_of_tier(report.findings, "refused", "warned")
    for finding in serious[:_PRINTED]:
        say(f"{finding.tier}: {finding.error()}")
    if len(serious) > _PRINTED:
        say(f"... and {len(serious) - _PRINTED} more in {CHECK_JSON}")
    if report.findings:
        console.print(findings_table(report.findings))
    if report.target is not None and report.source is not None:
        console.print(source_table(report.target, report.source))
    say(report.summary_line())
    count = len(list_pictures(folder))
    pictures = f", {count_of(count, 'picture')}" if count else ""
    say(f"report: {folder} ({CHECK_JSON}, {LEDGER}{pictures})")


def findings_table(findings: Sequence[Finding]) -> Table:
    """How often each problem was found, with examples."""
    table = TitledTable()
    for name in ("tier", "files", "what", "such as"):
        table.add_column(name, justify="right" if name == "files" else "left")
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.tier, finding.what), []).append(finding)
    for (tier, what), same in kinds.items():
        names = list(dict.fromkeys(f.case or Path(f.file).name for f in same))
        more = f", {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
        examples = Text(", ".join(names[:_EXAMPLES]) + more)
        table.add_row(Text(tier, style=_STYLE[tier]), str(len(same)), Text(what), examples)
    return table


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
