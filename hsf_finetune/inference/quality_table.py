"""What is expected of each segmentation, `quality.tsv`, and which scans to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.text import Text

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.quality_model import MEAN, Foretold, QualityModel
from hsf_finetune.inference.scan_shards import Shard
from hsf_finetune.inference.scan_table import Rows, ScanTable, scan_name
from hsf_finetune.system.console import TitledTable

QUALITY_FILE = "quality.tsv"
"""Beside the segmentations."""
_COLUMNS = ("class", "expected_dice", "lower_bound", "flags", "reason")
_MUCH_WORSE = 0.05
"""So far below an ordinary scan's, an expected Dice is a reason to look."""


@dataclass(frozen=True)
class QualityTable:
    """A table with a row for each scan and class, and one for the mean of the classes.

    Args:
        path: of the table, separated by tabs.
        quality: of the model.
        shard: the part of the scans that is written; None is all of them.
    """

    path: Path
    quality: QualityModel
    shard: Shard | None = None

    @cached_property
    def _table(self) -> ScanTable:
        return ScanTable(self.path, _COLUMNS, "expected quality", "-o")

    @cached_property
    def _part(self) -> ScanTable:
        return self._table.part(self.shard)

    def write_scan(
        self, scan: VolumeRef, foretold: Sequence[Foretold], warnings: Sequence[Finding]
    ) -> None:
        """Writes the rows of a scan; one that failed has a single row, without figures.

        Raises:
            OutputError: the table cannot be written, or is another one.
        """
        flags = ", ".join(dict.fromkeys(one.kind for one in warnings))
        remarks = list(dict.fromkeys(one.what for one in warnings))
        rows = []
        for one in foretold:
            reasons = [*(remarks if one.class_name == MEAN else ()), *self._reasons(one)]
            cells = (one.class_name, f"{one.dice:.3f}", f"{one.low:.3f}", flags, "; ".join(reasons))
            rows.append(cells)
        self._part.write(scan, rows or [(MEAN, "", "", flags, "; ".join(remarks))])

    def collect(self, scans: Sequence[VolumeRef]) -> None:
        """Moves the rows of all parts into the table; see `ScanTable.collect`.

        Raises:
            OutputError: the table cannot be written, or a part is another one.
        """
        self._table.collect(scans)

    def missing(self, scans: Sequence[VolumeRef]) -> list[VolumeRef]:
        """The scans that have no row.

        Raises:
            OutputError: the table is another one.
        """
        return self._table.missing(scans)

    def worst(self, scans: Sequence[VolumeRef], count: int) -> TitledTable:
        """Those of some scans to look at first: those that failed, then the least expected Dice.

        Raises:
            OutputError: the table cannot be read.
        """
        names = {scan_name(scan) for scan in scans}
        known = {name: rows for name, rows in self._table.read().items() if name in names}
        order = sorted(known, key=lambda name: _expected(known[name]))[:count]
        table = TitledTable(f"Look at these {len(order)} of {len(known)} scans first")
        for heading in ("scan", "expected Dice", "least", "why"):
            right = heading in ("expected Dice", "least")
            table.add_column(heading, justify="right" if right else "left", overflow="fold")
        for name in order:
            _, dice, low, _, reason = _mean(known[name])
            table.add_row(Text(name), dice or "-", low or "-", Text(reason))
        return table

    def _reasons(self, one: Foretold) -> list[str]:
        lacking = self.quality.typical - one.dice
        if lacking < _MUCH_WORSE:
            return []
        return [f"the model is less sure of it than usual (Dice {self.quality.typical:.2f})"]


def _mean(rows: Rows) -> Sequence[str]:
    return next(row for row in rows if row[0] == MEAN)


def _expected(rows: Rows) -> float:
    """The mean Dice that is expected; less than any other of a scan that failed."""
    dice = _mean(rows)[1]
    return float(dice) if dice else -1.0
