"""Parts of many scans, each segmented by a process of its own."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shard:
    """One of several parts of the scans; each scan is in just one of them.

    Which one follows from a checksum of the scan's own path below the output folder. So it is the
    same for every process, whatever other scans there are, and whichever of them are segmented.

    Args:
        number: of the part, from 1 on.
        count: of all parts.
    """

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """The part that a text such as `3/100` names.

        Raises:
            ValueError: it names none.
        """
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise ValueError(f"{text!r} names no part")
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, place: Path) -> bool:
        """Whether a scan is in this part.

        Args:
            place: its path below the output folder.
        """
        checksum = hashlib.sha256(os.fsencode(place.as_posix())).digest()
        return int.from_bytes(checksum[:8], "big") % self.count == self.number - 1
