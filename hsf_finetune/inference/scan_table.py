"""A table with rows for each scan, that several processes may fill."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.scan_shards import Shard
from hsf_finetune.system.atomic_files import append_csv, locked, read_csv, write_csv
from hsf_finetune.system.errors import OutputError

SCAN = "scan"
_TAKEN = "taken-"
"""The start of the names of parts that no process writes into any more."""

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

    def part(self, shard: Shard | None) -> ScanTable:
        """What a process writes into: this table, or that of a part of the scans.

        The latter is a file of its own, in a hidden folder, until `collect` is called.
        """
        if shard is None:
            return self
        name = f"{shard.number}_of_{shard.count}{self.path.suffix}"
        return replace(self, path=self._parts_folder / name)

    def collect(self, scans: Sequence[VolumeRef]) -> None:
        """Moves the rows of all parts into the table, which is replaced as a whole.

        Of processes that end at the same time, the first one collects the rows of all. One that is
        still segmenting begins a new part. What a killed process leaves is collected by the next.

        Args:
            scans: whose rows get their order; those of others come before.

        Raises:
            OutputError: the table cannot be written, or one of them has other columns.
        """
        if not self._parts_folder.is_dir():
            return
        with locked(self.path):
            if parts := self._take_parts():
                lines = self._merged_lines(parts, scans)
                write_csv(self.path, [SCAN, *self.columns], lines, delimiter="\t")
                for part in parts:
                    part.path.unlink()

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

    @property
    def _parts_folder(self) -> Path:
        return self.path.with_name(f".{self.path.name}.parts")

    def _take_parts(self) -> list[ScanTable]:
        """All parts, moved away from the processes that write them; the earliest first."""
        found = [
            path
            for path in sorted(self._parts_folder.iterdir())
            if path.suffix == self.path.suffix and not path.name.startswith(".")
        ]
        parts = [path for path in found if path.name.startswith(_TAKEN)]
        for path in found:
            if path in parts:
                continue
            taken = path.with_name(f"{_TAKEN}{secrets.token_hex(4)}{path.suffix}")
            # A network file system may list a file for a while after it was moved.
            with locked(path), suppress(FileNotFoundError):
                path.replace(taken)
                parts.append(taken)
        return [replace(self, path=path) for path in parts]

    def _merged_lines(
        self, parts: Sequence[ScanTable], scans: Sequence[VolumeRef]
    ) -> Iterator[Sequence[str]]:
        """The lines of the table and its parts.

        The table is read when the first line is asked for: `write_csv` has then made a file beside
        it, so that a network file system looks at the folder anew and finds what others wrote.
        """
        known = {**self.read()}
        for part in parts:
            known.update(part.read())
        names = dict.fromkeys(map(scan_name, scans))
        others = [name for name in known if name not in names]
        for name in [*others, *(name for name in names if name in known)]:
            for cells in known[name]:
                yield [name, *cells]

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
