"""Writing files whole or not at all, and the folder for what can be made again.

NumPy's types are recognised without importing it, since that would make light commands slow.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import math
import numbers
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hsf_finetune.system.errors import OutputError, UserError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FIXES = {
    errno.ENOSPC: "free some space on it, or write to another disk",
    errno.EDQUOT: "free some of your quota on it, or write to another disk",
    errno.EFBIG: "raise the file size limit (see `ulimit -f`), or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "choose a folder whose parents are folders, not files",
}
_ANY_FIX = "check that the disk has space left and that you may write there"
_FORMULA = re.compile(r"'*(?:[=@\t\r]|[+-](?![\d.]*(?:e[+-]?\d+)?\Z))", re.IGNORECASE)
"""The start of a text that a spreadsheet would run as a formula: not that of a number."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_BELOW_BYTES = 1 << 20


def cache_folder() -> Path:
    """Where downloads, demo models and disk caches go (HSF_FINETUNE_CACHE overrides)."""
    given = os.environ.get("HSF_FINETUNE_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "hsf_finetune"


def first_free(path: Path) -> Path:
    """The path or, where that exists, the first of `NAME_2`, `NAME_3` that does not."""
    tries = (path, *(path.with_stem(f"{path.stem}_{n}") for n in range(2, 1000)))
    return next(free for free in tries if not free.exists())


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Writes a file under another name first, and renames it once it is complete.

    The temporary file lies in the same folder, since a rename is atomic only within
    one file system, and keeps the last suffixes, since writers choose the format by
    them (`.nii.gz`). Missing parent folders are made. Whatever goes wrong, the
    temporary file is removed and an older file of that name stays as it was.

    Args:
        path: the file to write.

    Yields:
        The path to write to instead.

    Raises:
        OutputError: the file cannot be written; names path, reason and fix.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or pipe"
        raise OutputError(
            "cannot write the result", file=path, found=kind, fix="choose another file name"
        )
    temp = path.with_name(f".partial-{secrets.token_hex(4)}{''.join(path.suffixes[-2:])}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temp
        # Writable, since Windows syncs only such handles.
        with temp.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temp, path)
    except UserError:
        raise
    except Exception as error:
        cause = failed_write(error, path, temp)
        if cause is None:
            raise
        reason = os.strerror(cause.errno) if cause.errno else str(cause)
        fix = _FIXES.get(cause.errno or 0, _ANY_FIX)
        raise OutputError("cannot write the result", file=path, found=reason, fix=fix) from error
    finally:
        with suppress(OSError):  # which would hide the error that is on its way
            temp.unlink(missing_ok=True)


def failed_write(error: Exception, path: Path, temp: Path) -> OSError | None:
    """The failed write behind an exception; None where it is about something else.

    Args:
        error: that was raised while a file or folder was written.
        path: the file or folder.
        temp: what is written in its place.

    Raises:
        KeyboardInterrupt, SystemExit: PyTorch's writer was interrupted.
    """
    if isinstance(error, OSError):
        # Reading an input inside the block may fail too, which is no failed write.
        ours = {os.fspath(p) for p in (path, temp, *path.parents)}
        return error if error.filename is None or os.fspath(error.filename) in ours else None
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _NO_ROOM:
            return link
        link = link.__cause__ or link.__context__
    # PyTorch's own writer says where in its archive it stopped, but not the system's reason.
    if isinstance(error, RuntimeError) and "inline_container" in str(error):
        if isinstance(error.__context__, (KeyboardInterrupt, SystemExit)):
            raise error.__context__
        return OSError(f"only a part could be written ({error})")
    if isinstance(error, RuntimeError):
        with suppress(OSError):
            if shutil.disk_usage(path.parent).free < _FULL_BELOW_BYTES:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keeps other processes from changing a file while it is read and written again.

    They have to call this function too. The lock is a hidden file beside it, which stays: without
    it, one process could wait for the removed file while another locks a new one.

    Raises:
        OutputError: the folder cannot be written to.
    """
    path = Path(path)
    lock = _lock_of(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        fix = _FIXES.get(error.errno or 0, _ANY_FIX)
        raise OutputError(
            "cannot write the result", file=path, found=error.strerror, fix=fix
        ) from error
    try:
        yield
    finally:
        lock.release()


@lru_cache(maxsize=16)
def _lock_of(path: Path) -> BaseFileLock:
    """The lock of a file, which is slow to make."""
    from filelock import FileLock  # imported late, as few files are changed by several processes

    return FileLock(path)


def write_json(path: str | Path, obj: object) -> None:
    """Writes an object as indented JSON, atomically.

    Dataclasses become objects, NumPy values plain ones, paths text, sets sorted lists,
    iterators lists; NaN and infinities, which JSON lacks, become null. Items of lists and
    iterators are converted one at a time, when they are written.

    Raises:
        OutputError: the file cannot be written.
        TypeError: the object holds something that JSON cannot express.
    """
    encoder = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False)
    with _open_text(path) as file:
        file.writelines(encoder.iterencode(_plain(obj)))
        file.write("\n")


def write_csv(
    path: str | Path,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    delimiter: str = ",",
) -> None:
    """Writes a table as CSV (UTF-8, one header line), atomically.

    Text that a spreadsheet would run as a formula gets an apostrophe, which `read_csv` removes.

    Args:
        path: the file to write.
        header: column names.
        rows: cells, as many as the header has; None and NaN become empty cells.
        delimiter: between cells.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a row has more or fewer cells than the header.
    """
    with _open_text(path) as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(map(_to_cell, header))
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} cells in a table of {len(header)} columns: {row}")
            writer.writerow(map(_to_cell, row))


def append_csv(path: Path, rows: Iterable[Sequence[object]], delimiter: str = ",") -> None:
    """Adds lines to a table that `write_csv` wrote, all of them or none.

    Raises:
        OutputError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([*map(_to_cell, row)] for row in rows)
    size = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, size)
        fix = _FIXES.get(error.errno or 0, _ANY_FIX)
        raise OutputError(
            "cannot write the result", file=path, found=error.strerror, fix=fix
        ) from error


def read_csv(path: str | Path, delimiter: str = ",") -> list[list[str]]:
    """The lines of a table that `write_csv` wrote, header included.

    Raises:
        OSError, ValueError, csv.Error: the file cannot be read.
    """
    with Path(path).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [[*map(plain_cell, line)] for line in csv.reader(file, delimiter=delimiter)]


def plain_cell(text: str) -> str:
    """The text of a cell without the apostrophe that `write_csv` gives to formulas."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _to_cell(cell: object) -> object:
    # NumPy's floats of every width are registered as real numbers.
    if isinstance(cell, numbers.Real) and not isinstance(cell, numbers.Integral):
        return "" if math.isnan(cell) else cell
    is_formula = isinstance(cell, (str, Path)) and _FORMULA.match(str(cell))
    return f"'{cell}" if is_formula else cell


@contextmanager
def _open_text(path: str | Path) -> Iterator[TextIO]:
    # File names on Linux may be no valid UTF-8; surrogateescape gives their bytes back.
    with (
        atomic_write(path) as temp,
        temp.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file


class _Items(list[object]):
    """What JSON's encoder takes for a list that is not empty, and goes through once."""

    def __init__(self, items: Iterator[object]) -> None:
        super().__init__([None])
        self._items = items

    def __iter__(self) -> Iterator[object]:
        return map(_plain, self._items)


def _plain(obj: object) -> object:
    """The object in the types that JSON has."""
    if obj is None or isinstance(obj, (str, bool, int)):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if hasattr(obj, "tolist"):  # NumPy's scalars and arrays
        return _plain(obj.tolist())
    if isinstance(obj, Path):
        return str(obj)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: _plain(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (set, frozenset)):
        return [_plain(item) for item in sorted(obj)]
    if isinstance(obj, (list, tuple, Iterator)):
        items = iter(obj)
        return [] if (first := next(items, items)) is items else _Items(chain([first], items))
    raise TypeError(f"JSON cannot express a {type(obj).__name__}")
