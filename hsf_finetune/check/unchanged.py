"""Whether an earlier check still stands: nothing that its report follows from has changed.

Files and folders count as unchanged while their size and times of change, of content and
of permissions, are the same. As in Git's index, one that was changed while the check ran
is not to be trusted: the check may have seen it before or after.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.system.errors import OutputError
from hsf_finetune.system.files import cache_folder, write_json

_PACKAGE = Path(__file__).parents[1]
_MOST = 50_000
"""Looking after more files and folders takes longer than it saves."""


@dataclass(frozen=True)
class Earlier:
    """A check that was made, and what has to be known to give its report again.

    Args:
        folder: of its report.
        below: folder in which each check makes one of its own.
        stem: how the name of that folder ends.
        strict: whether the configuration asks for warnings to count.
        advice: what was said at the end.
    """

    folder: Path
    below: Path
    stem: str
    strict: bool
    advice: tuple[str, ...]


class Watch:
    """Gathers what a check follows from, beginning when it starts.

    Args:
        given: overrides as on the command line, or a dataset YAML and overrides.
        config_dir: folder with the user's own groups.
    """

    def __init__(self, given: Sequence[str], config_dir: Path | None) -> None:
        self._started_ns = time.time_ns()
        self._key = _key(given, config_dir)
        self._paths = {*_PACKAGE.rglob("*.py")}

    def files(self, *paths: Path) -> None:
        """These, whether they are there or not."""
        self._paths |= {*paths}

    def folder(
        self, top: Path, suffixes: tuple[str, ...] = (), but: Collection[Path] = ()
    ) -> list[Path]:
        """Every folder from this one on, so that no file is added or removed unseen.

        Args:
            top: the first of them.
            suffixes: of files that are watched as well.
            but: folders to leave out.

        Returns:
            Those files.
        """
        watched: list[Path] = []
        places: set[str] = set()
        for folder, below, files in os.walk(top, followlinks=True):
            place = os.path.realpath(folder)
            if place in places:
                below.clear()  # a link that leads back
                continue
            places.add(place)
            below[:] = [name for name in below if Path(folder, name) not in but]
            self._paths.add(Path(folder))
            watched += [Path(folder, name) for name in files if name.endswith(suffixes)]
            if len(self._paths) + len(watched) > _MOST:
                break
        self.files(*watched)
        return watched

    def remember(self, earlier: Earlier) -> None:
        """Keeps the check; one that cannot be kept is made again the next time."""
        stamps = {str(path): _stamp(path) for path in self._paths}
        if len(stamps) > _MOST:
            return
        if any(stamp and max(stamp[1:]) >= self._started_ns for stamp in stamps.values()):
            return
        report = [path for path in earlier.folder.rglob("*") if path.is_file()]
        plain = {**vars(earlier), "stamps": stamps | {str(path): _stamp(path) for path in report}}
        try:
            write_json(_file(self._key), plain)
        except OutputError:
            return


def recall(given: Sequence[str], config_dir: Path | None) -> Earlier | None:
    """The check of the same command, where all is as it was then; else None."""
    try:
        text = _file(_key(given, config_dir)).read_text(encoding="utf-8", errors="surrogateescape")
        kept = json.loads(text)
        if any(_stamp(path) != stamp for path, stamp in kept["stamps"].items()):
            return None
        folder, below = Path(kept["folder"]), Path(kept["below"])
        return Earlier(folder, below, kept["stem"], kept["strict"], tuple(kept["advice"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # nothing there, or a damaged copy of what can be found out again


# -------------------------------------------------------------------- internals
def _key(given: Sequence[str], config_dir: Path | None) -> str:
    """Names a command: its words, and where they were said."""
    said = [[*given], str(config_dir), os.getcwd(), str(_PACKAGE), sys.version]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _file(key: str) -> Path:
    return cache_folder() / "check" / "reports" / f"{key}.json"


def _stamp(path: str | Path) -> list[int] | None:
    """Size in bytes and times of change in nanoseconds; None where nothing is."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
