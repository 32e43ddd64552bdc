"""A table with rows for each scan, that several processes may fill."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.system.atomic_files import locked, read_csv, write_csv
from hsf_finetune.system.errors import OutputError

SCAN = "scan"

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class ScanTable:
    """Rows of cells for each scan, separated by tabs, behind the scan's path.

    The rows of a scan are replaced where it has some. Those of other scans are kept.

    Args:
        path: of the table.
        columns: names of the columns behind that of the scan.
        what: what it is a table of.
        option: of the command, that names another file.
    """

    path: Path
    columns: tuple[str, ...]
    what: str
    option: str

    def write(self, scan: VolumeRef, rows: Rows) -> None:
        """Writes the rows of a scan.

        Raises:
            OutputError: the table cannot be written, or has other columns.
        """
        with locked(self.path):
            known = {**self.read(), scan_name(scan): rows}
            lines = [[name, *cells] for name, some in known.items() for cells in some]
            write_csv(self.path, [SCAN, *self.columns], lines, delimiter="\t")

    def missing(self, scans: Sequence[VolumeRef]) -> list[VolumeRef]:
        """The scans that have no row.

        Raises:
            OutputError: the table cannot be read, or has other columns.
        """
        known = self.read()
        return [scan for scan in scans if scan_name(scan) not in known]

    def read(self) -> Mapping[str, Rows]:
        """Name of each scan -> its rows.

        Raises:
            OutputError: the table cannot be read, or has other columns.
        """
        if not self.path.exists():
            return {}
        try:
            header, *lines = read_csv(self.path, delimiter="\t") or [[]]
        except (OSError, ValueError, csv.Error) as error:
            raise OutputError(
                f"the table of {self.what} cannot be read", file=self.path, found=error
            ) from error
        if header != [SCAN, *self.columns] or any(len(line) != len(header) for line in lines):
            raise OutputError(
                f"the table of {self.what} is one of other classes",
                file=self.path,
                found=", ".join(header) or "no header",
                expected=", ".join([SCAN, *self.columns]),
                fix=f"give {self.option} another file",
            )
        known: dict[str, list[list[str]]] = {}
        for name, *cells in lines:
            known.setdefault(name, []).append(cells)
        return known


def scan_name(scan: VolumeRef) -> str:
    """The path of a scan from the root, so that a call from another folder finds its row."""
    return os.path.abspath(scan.path) + (f":{scan.key}" if scan.key else "")
