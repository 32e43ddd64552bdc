"""A table of volumes, `volumes.tsv`, that several processes may fill."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.system.atomic_files import locked, read_csv, write_csv
from hsf_finetune.system.errors import OutputError

_SCAN, _REMARKS = "scan", "remarks"
_UNIT = "_mm3"


@dataclass(frozen=True)
class VolumeTable:
    """A table with a row for each scan: its path, mm3 of each class, and what is unusual.

    A row is written again where the scan has one. Rows of other scans are kept.

    Args:
        path: of the table, separated by tabs.
        classes: without the background.
    """

    path: Path
    classes: tuple[str, ...]

    @property
    def _header(self) -> list[str]:
        return [_SCAN, *(f"{name}{_UNIT}" for name in self.classes), _REMARKS]

    def write_row(
        self, scan: VolumeRef, volumes_mm3: Mapping[str, float], remarks: Sequence[str]
    ) -> None:
        """Writes the row of a scan; that of one without volumes, which failed, has empty cells.

        Raises:
            OutputError: the table cannot be written, or is one of other classes.
        """
        cells = [f"{volumes_mm3[n]:.3f}" if n in volumes_mm3 else "" for n in self.classes]
        name = _name(scan)
        with locked(self.path):
            rows = self._read()
            rows[name] = [name, *cells, "; ".join(dict.fromkeys(remarks))]
            write_csv(self.path, self._header, rows.values(), delimiter="\t")

    def missing(self, scans: Sequence[VolumeRef]) -> list[VolumeRef]:
        """The scans that have no row.

        Raises:
            OutputError: the table is one of other classes.
        """
        rows = self._read()
        return [scan for scan in scans if _name(scan) not in rows]

    def _read(self) -> dict[str, list[str]]:
        """Name of the scan -> its row."""
        if not self.path.exists():
            return {}
        try:
            header, *rows = read_csv(self.path, delimiter="\t") or [[]]
        except (OSError, ValueError, csv.Error) as error:
            raise OutputError(
                "the table of volumes cannot be read", file=self.path, found=error
            ) from error
        if header != self._header or any(len(row) != len(header) for row in rows):
            raise OutputError(
                "the table of volumes is one of other classes",
                file=self.path,
                found=", ".join(header) or "no header",
                expected=", ".join(self._header),
                fix="give --volumes another file",
            )
        return {row[0]: row for row in rows}


def _name(scan: VolumeRef) -> str:
    """The path of a scan from the root, so that a call from another folder finds its row."""
    return os.path.abspath(scan.path) + (f":{scan.key}" if scan.key else "")
