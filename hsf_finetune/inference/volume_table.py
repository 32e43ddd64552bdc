"""A table of volumes, `volumes.tsv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.scan_shards import Shard
from hsf_finetune.inference.scan_table import ScanTable
from hsf_finetune.system.console import format_size

_DIGITS = 7
"""Significant digits of a volume."""


@dataclass(frozen=True)
class VolumeTable:
    """A table with a row for each scan: its path, mm3 of each class, and what is unusual.

    Args:
        path: of the table, separated by tabs.
        classes: without the background.
        shard: the part of the scans that is written; None is all of them.
    """

    path: Path
    classes: tuple[str, ...]
    shard: Shard | None = None

    @cached_property
    def _table(self) -> ScanTable:
        columns = (*(f"{name}_mm3" for name in self.classes), "remarks")
        return ScanTable(self.path, columns, "volumes", "--volumes")

    @cached_property
    def _part(self) -> ScanTable:
        return self._table.part(self.shard)

    def write_row(
        self, scan: VolumeRef, volumes_mm3: Mapping[str, float], remarks: Sequence[str]
    ) -> None:
        """Writes the row of a scan; that of one without volumes, which failed, has empty cells.

        Raises:
            OutputError: the table cannot be written, or is one of other classes.
        """
        cells = [
            format_size(volumes_mm3[n], _DIGITS) if n in volumes_mm3 else "" for n in self.classes
        ]
        self._part.write(scan, [[*cells, "; ".join(dict.fromkeys(remarks))]])

    def collect(self, scans: Sequence[VolumeRef]) -> None:
        """Moves the rows of all parts into the table; see `ScanTable.collect`.

        Raises:
            OutputError: the table cannot be written, or a part is one of other classes.
        """
        self._table.collect(scans)

    def missing(self, scans: Sequence[VolumeRef]) -> list[VolumeRef]:
        """The scans that have no row.

        Raises:
            OutputError: the table is one of other classes.
        """
        return self._table.missing(scans)
