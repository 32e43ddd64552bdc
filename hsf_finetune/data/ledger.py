"""The ledger: every file that was found, and its status."""

from __future__ import annotations

from pathlib import Path

from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.splits import SIDES, Split
from hsf_finetune.system.atomic_files import write_csv


def write_ledger(path: Path, cohort: Cohort, split: Split) -> None:
    """Writes one line per file as CSV: status, case and its number, subject, side, reason.

    Raises:
        OutputError: the file cannot be written.
    """
    sides: dict[str, str] = {}
    for side in SIDES:
        for case in split.side(side):
            sides[case.name] = f"{sides[case.name]}+{side}" if case.name in sides else side
    number = {case.name: n for n, case in enumerate(cohort.cases)}
    rows = (
        (
            entry.path,
            entry.status,
            number.get(entry.case, ""),
            entry.case,
            entry.subject,
            sides.get(entry.case, "not in the split" if entry.case else ""),
            entry.reason,
        )
        for entry in cohort.ledger()
    )
    write_csv(path, ("file", "fate", "case_number", "case", "subject", "side", "reason"), rows)
