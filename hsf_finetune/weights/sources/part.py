"""A download that is not complete yet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Part:
    """What has arrived of a file, and a note beside it on what it is a part of.

    Args:
        path: the partial file; the note is `path` with `.json` after it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def note(self, url: str) -> dict[str, Any]:
        """What is known of the whole file; empty unless it came from this URL."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) and note.get("url") == url else {}

    def begin(self, url: str, validator: str | None, total: int | None) -> None:
        """Empties the file and notes what is to come."""
        self.discard()
        self.path.touch()
        note = {"url": url, "validator": validator, "total": total}
        self._note.write_text(json.dumps(note), encoding="utf-8")

    def discard(self) -> None:
        """Removes both, the note first: without it the file is never gone on with."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def hand_over(self, target: str | Path) -> None:
        """Renames the complete file, once it has reached the disk."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self._note.unlink(missing_ok=True)
        os.replace(self.path, target)
