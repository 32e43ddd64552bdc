"""A table with rows for each scan, that several processes may fill."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.system.atomic_files import append_csv, locked, read_csv, write_csv
from hsf_finetune.system.errors import OutputError

SCAN = "scan"

Rows = Sequence[Sequence[str]]


@dataclass
class _Seen:
    """The table as this process left it: size and time of its file, and the scans in it."""

    stamp: tuple[int, int] | None = None
    names: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class ScanTable:
    """Rows of cells for each scan, separated by tabs, behind the scan's path.

    The rows of a scan are replaced where it has some. Those of other scans are kept. Rows of a new
    scan are added at the end, so that many scans take as long each as a few.

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
    _seen: _Seen = field(default_factory=_Seen, init=False, repr=False, compare=False)

    def write(self, scan: VolumeRef, rows: Rows) -> None:
        """Writes the rows of a scan.

        Raises:
            OutputError: the table cannot be written, or has other columns.
        """
        name = scan_name(scan)
        lines = [[name, *cells] for cells in rows]
        with locked(self.path):
            stamp = self._find_stamp()
            if stamp is None or stamp != self._seen.stamp:  # another process may have written it
                self._seen.names = {*self.read()} if stamp else set()
            if stamp and name not in self._seen.names:
                append_csv(self.path, lines, delimiter="\t")
            else:
                known = {**self.read(), name: rows}
                lines = [[one, *cells] for one, some in known.items() for cells in some]
                write_csv(self.path, [SCAN, *self.columns], lines, delimiter="\t")
            self._seen.names.add(name)
            self._seen.stamp = self._find_stamp()

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
        if lines and len(lines[-1]) < len(header) and not self._ends_with_a_line():
            lines.pop()  # the computer stopped while it was added
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

    def _find_stamp(self) -> tuple[int, int] | None:
        """Size and time of change of the file; None if there is none that can be added to."""
        if not self.path.exists() or not self._ends_with_a_line():
            return None
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns

    def _ends_with_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(max(self.path.stat().st_size - 1, 0))
            return file.read(1) == b"\n"


def scan_name(scan: VolumeRef) -> str:
    """The path of a scan from the root, so that a call from another folder finds its row."""
    return os.path.abspath(scan.path) + (f":{scan.key}" if scan.key else "")
