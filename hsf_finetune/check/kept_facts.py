"""Facts of many cases in a file: of each case the memory holds its findings alone."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsf_finetune.check.case_facts import EDGE_VOX, CaseFacts, Measures, Thumbnails
from hsf_finetune.check.findings import Finding
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import OutputError

_IN_MEMORY_BYTES = 2**22
"""Up to this size the lines are kept in memory."""


class FactsFile:
    """A line for each case: its fingerprint and facts, a tab, its thumbnails.

    The file has no name, and is gone with this object; `save` copies it.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115
        self._facts, self._thumbnails = array("q"), array("q")  # where they begin in each line
        self._end = 0

    def add(self, key: str | None, facts: CaseFacts) -> KeptFacts:
        """Writes the facts of a case.

        Raises:
            OutputError: the disk is full.
        """
        cubes = [] if facts.thumbnails is None else vars(facts.thumbnails).values()
        voxels = b"".join(cube.tobytes() for cube in cubes if cube is not None)
        thumbnails = base64.b64encode(zlib.compress(voxels, 1))
        head = json.dumps([key, zlib.crc32(thumbnails), facts.to_dict()], ensure_ascii=False)
        return self._write(head.encode("utf-8", "surrogateescape"), thumbnails, facts)

    def load(self, path: Path, keys: Container[str]) -> Iterator[tuple[str, KeptFacts]]:
        """Fingerprints and facts that an earlier check saved, without those of a damaged file."""
        try:
            with path.open("rb") as saved:
                for line in saved:
                    head, _, thumbnails = line.rstrip(b"\n").partition(b"\t")
                    key, checksum, plain = json.loads(head.decode("utf-8", "surrogateescape"))
                    if key in keys and zlib.crc32(thumbnails) == checksum:
                        facts = CaseFacts.from_dict(plain)
                        yield key, self._write(head, thumbnails, facts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return  # no cache yet, or a damaged one: the cases are read again

    def save(self, path: Path) -> None:
        """Keeps all lines; a cache that cannot be written is no reason to stop."""
        self._file.seek(0)
        try:
            with atomic_write(path) as temp, temp.open("wb") as file:
                shutil.copyfileobj(self._file, file)
        except OutputError:
            return

    def read_measures(self, number: int) -> Measures:
        """The measures of a line that has some; lines count from 0."""
        start, end = self._facts[number], self._thumbnails[number] - 1
        _, _, plain = json.loads(self._read(start, end).decode("utf-8", "surrogateescape"))
        return Measures.from_dict(plain["measures"])

    def read_thumbnails(self, number: int) -> Thumbnails:
        """The thumbnails of a line that has measures."""
        last = number + 1 == len(self._facts)
        end = self._end if last else self._facts[number + 1]
        voxels = zlib.decompress(base64.b64decode(self._read(self._thumbnails[number], end - 1)))
        cubes = np.frombuffer(voxels, dtype=np.int8).reshape(-1, EDGE_VOX, EDGE_VOX, EDGE_VOX)
        return Thumbnails(*cubes)

    def _read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)

    def _write(self, head: bytes, thumbnails: bytes, facts: CaseFacts) -> KeptFacts:
        try:
            self._file.seek(self._end)
            self._file.write(head + b"\t" + thumbnails + b"\n")
        except OSError as error:
            raise OutputError(
                "the facts of the cases cannot be kept while they are compared",
                file=tempfile.gettempdir(),
                found=error.strerror,
                fix="set TMPDIR to a folder with space: 10 KB for each case",
            ) from error
        self._facts.append(self._end)
        self._thumbnails.append(self._end + len(head) + 1)
        self._end += len(head) + len(thumbnails) + 2
        return KeptFacts(facts.findings, facts.measures is not None, self, len(self._facts) - 1)


@dataclass(frozen=True, eq=False, slots=True)
class KeptFacts:
    """The facts of one case, of which measures and thumbnails are read from a file when needed.

    Args:
        findings: of the case.
        is_measured: whether it could be measured.
    """

    findings: tuple[Finding, ...]
    is_measured: bool
    _file: FactsFile
    _number: int

    def read_measures(self) -> Measures:
        """The measures of a case that has some."""
        return self._file.read_measures(self._number)

    def read_thumbnails(self) -> Thumbnails:
        """The thumbnails of a case that has measures."""
        return self._file.read_thumbnails(self._number)
