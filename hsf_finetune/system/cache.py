"""What the user's cache holds, how large it is, and removing what was not used for long."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.system.atomic_files import cache_folder

KEPT_DAYS = 60
"""Entries that can be made again and were not used for so long are removed by themselves."""
_DAY_S = 86_400.0
_SWEPT = ".swept"


@dataclass(frozen=True)
class CacheKind:
    """A kind of what is kept.

    Args:
        folder: its place in the cache, from `cache_folder`.
        what: in words.
        is_remade: whether it is made again, at no more cost than time, where it lacks.
        whole: whether each entry is a folder, which is used and removed as one.
    """

    folder: str
    what: str
    is_remade: bool = True
    whole: bool = False


KINDS = (
    CacheKind("weights", "weights that were downloaded", is_remade=False),
    CacheKind("accepted_licences", "licences of weights that were accepted", is_remade=False),
    CacheKind("demo", "source models of the phantom cohort", whole=True),
    CacheKind("phantom", "the phantom cohort of the source models", whole=True),
    CacheKind("samples", "prepared cases of training"),
    CacheKind("check", "facts about scans that were checked"),
    CacheKind("engines", "networks as graphs of other engines"),
    CacheKind("precisions", "how fast steps in bfloat16 are"),
    CacheKind("proofs", "comparisons of weights with their own program"),
)


@dataclass(frozen=True)
class CacheEntry:
    """A file, or a folder that is used as one.

    Args:
        path: of it.
        size_bytes: of all it holds.
        used: when it was read or written last, in seconds since 1970.
    """

    path: Path
    size_bytes: int
    used: float

    @property
    def unused_days(self) -> float:
        """For how long it was not used, in days."""
        return max(time.time() - self.used, 0.0) / _DAY_S


def list_entries(kind: CacheKind) -> list[CacheEntry]:
    """What the cache holds of a kind; files that vanish meanwhile are left out."""
    root = cache_folder() / kind.folder
    if not root.is_dir():
        return []
    paths = root.iterdir() if kind.whole else (p for p in root.rglob("*") if p.is_file())
    return [entry for path in sorted(paths) if (entry := _measure(path))]


def prune(kinds: Sequence[CacheKind], unused_days: float) -> tuple[int, int]:
    """Removes entries that were not used for so many days.

    Returns:
        How many were removed, and how many bytes they had.
    """
    count = size = 0
    for kind in kinds:
        for entry in list_entries(kind):
            if entry.unused_days >= unused_days:
                if entry.path.is_dir():
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        entry.path.unlink()
                if not entry.path.exists():
                    count, size = count + 1, size + entry.size_bytes
    return count, size


def sweep() -> None:
    """Once a day, removes what can be made again and was not used for `KEPT_DAYS`."""
    mark = cache_folder() / _SWEPT
    with suppress(OSError):
        if not mark.exists() or time.time() - mark.stat().st_mtime > _DAY_S:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            prune([kind for kind in KINDS if kind.is_remade], KEPT_DAYS)


def _measure(path: Path) -> CacheEntry | None:
    try:
        stats = [one.stat() for one in _files_of(path)]
    except OSError:
        return None
    if not stats:
        return CacheEntry(path, 0, path.stat().st_mtime)
    used = max(max(one.st_atime, one.st_mtime) for one in stats)
    return CacheEntry(path, sum(one.st_size for one in stats), used)


def _files_of(path: Path) -> Iterator[Path]:
    yield from (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
