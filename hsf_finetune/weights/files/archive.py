"""Unpacks an untrusted archive, all of it, without letting it write outside its folder."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.unreadable import FETCH_AGAIN

LIMIT_BYTES = 8 << 30
"""Largest size of an unpacked archive, well above any published 3D network."""
LIMIT_FILES = 10_000
_LARGEST_RATIO = 100
_RATIO_MATTERS_ABOVE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_TAR = (".tar", ".tar.gz", ".tgz")


def archive_names(path: Path) -> list[str]:
    """The names in a zip or tar archive; none of any other path, a damaged one, or torch's own."""
    try:
        if path.is_file() and path.name.endswith(_TAR):
            with tarfile.open(path) as tar:
                return tar.getnames()
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            return [] if any(name.partition("/")[2] == "data.pkl" for name in names) else names
    except (OSError, EOFError, ValueError, NotImplementedError, tarfile.TarError, zipfile.error):
        pass
    return []


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """What an archive holds, in a folder that exists while the block runs; else the path itself.

    Raises:
        WeightsError: see `extract_safely`; or of the block, with the archive's name in place of
            the folder's.
    """
    if not archive_names(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        root = Path(folder) / "model"
        if path.name.endswith(_TAR):
            _extract_tar(path, root)
        else:
            extract_safely(path, root)
        try:
            yield root
        except WeightsError as error:
            # The folder no longer exists when a user reads this.
            raise WeightsError(str(error).replace(str(root), str(path))) from error


def extract_safely(
    zip_path: Path, folder: Path, limit_bytes: int = LIMIT_BYTES, limit_files: int = LIMIT_FILES
) -> tuple[Path, ...]:
    """Unpacks a zip archive into a new folder; all of it or, on an error, nothing.

    Every name, type and size is checked before a byte is written. Modes, owners and
    links are not restored.

    Returns:
        The files written, in the archive's order.

    Raises:
        WeightsError: it is damaged or encrypted, an entry would be written outside the folder,
            is a link or a device, or contradicts another one; or the entries are too many, or
            too large; or the disk is full.
    """
    written: list[Path] = []
    with zipfile.ZipFile(zip_path) as archive:
        entries = _check_entries(archive, zip_path, limit_bytes, limit_files)
        folder.mkdir(parents=True)
        try:
            for info, name in entries:
                written.append(folder.joinpath(*name.parts))
                written[-1].parent.mkdir(parents=True, exist_ok=True)
                _write(archive, info, written[-1], zip_path)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise _unpack_error(zip_path, error.strerror or error) from error
            raise
    return tuple(written)


# -------------------------------------------------------------------- internals
def _extract_tar(path: Path, folder: Path) -> None:
    """Unpacks the files of a tar archive, without links, devices, or paths outside."""
    with tarfile.open(path) as tar:
        wanted = [member for member in tar.getmembers() if member.isfile()]
        size = sum(member.size for member in wanted)
        if len(wanted) > LIMIT_FILES or size > LIMIT_BYTES:
            raise WeightsError(
                "the archive is too large",
                file=path,
                found=f"{len(wanted):,} files of {size:,} bytes",
                fix="unpack it, and give the folder of one model",
            )
        try:
            tar.extractall(folder, wanted, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise _unpack_error(path, error) from error


def _check_entries(
    archive: zipfile.ZipFile, path: Path, limit_bytes: int, limit_files: int
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files of an archive and where each goes; refuses the whole archive for any bad one."""
    infos = archive.infolist()
    if len(infos) > limit_files:
        raise _refused(path, f"{len(infos):,} entries", f"at most {limit_files:,}")
    size, packed = sum(i.file_size for i in infos), path.stat().st_size
    if size > limit_bytes:
        raise _refused(path, f"{size:,} bytes unpacked", f"at most {limit_bytes:,}")
    if size > max(_LARGEST_RATIO * packed, _RATIO_MATTERS_ABOVE_BYTES):
        raise _refused(
            path,
            f"{packed:,} bytes that unpack to {size:,}",
            f"at most {_LARGEST_RATIO} times its own size",
        )
    entries = []
    taken: dict[str, bool] = {}
    for info in infos:
        name, reason = _entry_path(info)
        if reason:
            raise _refused(path, f"{info.filename!r}, {reason}", "plain files below one folder")
        is_file = not info.is_dir() and bool(name.parts)
        # Folded, since two names that differ in case are one file on some disks.
        for key, is_leaf in _paths_used(name, is_file):
            if key in taken and (taken[key] or is_leaf):
                raise _refused(path, f"{info.filename!r} twice", "each name once")
            taken[key] = is_leaf
        if is_file:
            entries.append((info, name))
    return entries


def _paths_used(name: PurePosixPath, is_file: bool) -> Iterator[tuple[str, bool]]:
    """The paths that an entry uses, its parents as folders and itself, and whether each is a file."""
    for parent in name.parents:
        yield str(parent).casefold(), False
    yield str(name).casefold(), is_file


def _entry_path(info: zipfile.ZipInfo) -> tuple[PurePosixPath, str]:
    """Where an entry goes, and why it is refused; the latter empty if it is not."""
    # Some Windows programs write backslashes; elsewhere these would be parts of names.
    text = info.filename.replace("\\", "/")
    name = PurePosixPath(text)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name.is_absolute() or PureWindowsPath(text).drive or PureWindowsPath(text).root:
        return name, "an absolute path"
    if ".." in name.parts:
        return name, "which leads out of the folder"
    if kind == stat.S_IFLNK:
        return name, "a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return name, "neither a file nor a folder"
    if any(ord(letter) < 32 or letter == ":" for letter in text):
        return name, "a name that not every system can write"
    if info.flag_bits & 1:
        return name, "which is encrypted"
    return name, ""


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, path: Path) -> None:
    """Unpacks one file; `zipfile` never gives more bytes than its entry states."""
    # "x" never follows a link or replaces a file.
    with target.open("xb") as file:
        try:
            with archive.open(info) as packed:
                shutil.copyfileobj(packed, file, _CHUNK_BYTES)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
            raise WeightsError(
                "the archive is damaged",
                file=path,
                found=f"{info.filename}: {error}",
                fix=FETCH_AGAIN,
            ) from error


def _unpack_error(path: Path, found: object) -> WeightsError:
    what = "the archive cannot be unpacked"
    return WeightsError(what, file=path, found=found, fix="unpack it yourself")


def _refused(path: Path, found: str, expected: str) -> WeightsError:
    return WeightsError(
        "the archive is refused, since unpacking it could do harm",
        file=path,
        found=found,
        expected=expected,
        fix="get it from its publisher; where you trust it, unpack it yourself and give the folder",
    )
