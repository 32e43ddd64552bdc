"""Reads files of torch.save, in its present format or the one before, without running them."""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.pickle_scan import PickleGlobal, PickleScan, scan_pickle
from hsf_finetune.weights.files.trust import (
    SAVE_ALONE,
    allow_globals,
    refuse_harmful,
    trusted_globals,
    unsafe_globals,
    untrusted_error,
)
from hsf_finetune.weights.files.unreadable import unreadable_error

_LARGEST_PICKLE_BYTES = 64 << 20
"""The pickle of an archive holds names and shapes; the numbers are beside it."""
_OLD_FORMAT_PICKLES = 5
"""Magic number, version, system, content and storage keys, before the numbers."""
_LOCAL_HEADER_BYTES = 30


def load_torch_file(path: Path, trust: Sequence[str] = ()) -> object:
    """What a file of torch.save holds, on the CPU.

    The pickle in it is first read without being run, to find which functions and
    classes it needs, and how much memory it claims, which is compared with what the
    file holds. Only then is it loaded, with `weights_only=True`.

    Args:
        path: the file.
        trust: functions and classes beyond torch's own that this file may load.

    Raises:
        WeightsError: the file is damaged, no file of torch.save, needs what is not
            trusted or may never be, or claims more than it holds.
    """
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    pickles, size_of = (_read_archive if is_archive else _read_old_format)(path)
    needed: set[str] = set()
    for pickled, found in pickles:
        _check_claims(path, found, size_of)
        needed |= _needed(path, pickled, found)
    allowed = trusted_globals(path, sorted(needed), trust)
    try:
        # A file object, since torch treats a path by its suffix.
        with warnings.catch_warnings(), allow_globals(allowed), path.open("rb") as file:
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load fails in a dozen ways (zip, pickle, unicode, index errors, ...),
        # and none of its messages tells a user what to do.
        raise _load_error(path, error, trust) from error


# ------------------------------------------------------------------- the present format
def _read_archive(path: Path) -> tuple[list[tuple[bytes, PickleScan]], Callable[[str], int]]:
    """The one pickle of an archive, and the sizes of its storages."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise unreadable_error(path, error) from error
    records = {info.filename: info for info in infos}
    inside = [name for name in records if PurePosixPath(name).name == "data.pkl"]
    if len(inside) != 1 or any(PurePosixPath(n).name == "constants.pkl" for n in records):
        raise _other_archive_error(path, list(records))
    total = sum(info.file_size for info in infos)
    if len(records) < len(infos) or total > path.stat().st_size:
        raise _oversize_error(path, f"an archive whose parts have {total:,} bytes")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise WeightsError(
            "the file is a compressed archive, which torch.save does not write",
            file=path,
            fix="unpack it and pack it without compression: zip -0 -r weights.pt FOLDER",
        )
    if records[inside[0]].file_size > _LARGEST_PICKLE_BYTES:
        raise _oversize_error(path, f"a pickle of {records[inside[0]].file_size:,} bytes")
    pickled = _stored_bytes(path, records[inside[0]])
    folder = inside[0][: -len("data.pkl")]

    def size_of(key: str) -> int:
        record = records.get(f"{folder}data/{key}")
        return record.file_size if record else 0

    try:
        return [(pickled, scan_pickle(io.BytesIO(pickled)))], size_of
    except ValueError as error:
        raise unreadable_error(path, error, "a damaged archive") from error


def _stored_bytes(path: Path, info: zipfile.ZipInfo) -> bytes:
    """The bytes of an uncompressed entry; zipfile would require checksums, which torch may omit."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES:
            raise unreadable_error(path, "an entry beyond the end", "a damaged archive")
        name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
        file.seek(name_bytes + extra_bytes, io.SEEK_CUR)
        return file.read(info.file_size)


def _other_archive_error(path: Path, names: Sequence[str]) -> WeightsError:
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    inner = [n for n in names if PurePosixPath(n).suffix in (".ckpt", ".pt", ".pth")]
    fix = f"unpack it, and give {inner[0]}" if inner else "unpack it, and give the checkpoint in it"
    what = "the file is an archive, but not one of torch.save"
    if any(PurePosixPath(n).name == "constants.pkl" for n in names):
        what = "the file is a TorchScript program, which is not run to get at its weights"
        fix = "save them alone, where you trust it: "
        fix += f"torch.save(torch.jit.load('{path.name}').state_dict(), 'weights.pt')"
    return WeightsError(what, file=path, found=listed or "nothing in it", fix=fix)


# ------------------------------------------------------------------- the older format
def _read_old_format(path: Path) -> tuple[list[tuple[bytes, PickleScan]], Callable[[str], int]]:
    """The pickles in a row that torch.save wrote before version 1.6, and plain ones."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            raise unreadable_error(path, "neither an archive nor a pickle")
        file.seek(0)
        pickles: list[tuple[bytes, PickleScan]] = []
        while len(pickles) < _OLD_FORMAT_PICKLES and file.tell() < size:
            begin = file.tell()
            try:
                found = scan_pickle(file)
            except ValueError as error:
                raise unreadable_error(
                    path, error, f"{size:,} bytes of a damaged pickle"
                ) from error
            end = file.tell()
            file.seek(begin)
            pickles.append((file.read(end - begin), found))
    if len(pickles) < _OLD_FORMAT_PICKLES:
        refuse_harmful(path, {name for _, found in pickles for name in found.globals})
        raise unreadable_error(path, "torch.save writes several", "a plain pickle")
    return pickles, lambda key: size


# ---------------------------------------------------------------------------- checks
def _needed(path: Path, pickled: bytes, found: PickleScan) -> set[str]:
    try:
        return set(unsafe_globals(pickled))
    except ValueError as error:
        # torch cannot read newer pickle protocols, but the globals they use are known.
        refuse_harmful(path, found.globals)
        raise WeightsError(
            "the file is a pickle, but not one that torch reads safely",
            file=path,
            found=str(error).splitlines()[0][:160],
            expected="a file written by torch.save with its default pickle protocol",
            fix=f"save its weights alone, where it was trained: {SAVE_ALONE}",
        ) from error


def _check_claims(path: Path, found: PickleScan, size_of: Callable[[str], int]) -> None:
    """Refuses storages larger than the file's, before memory is set aside for them."""
    claimed: dict[str, int] = {}
    for storage in found.persistent:
        match storage:
            case ("storage" | b"storage", PickleGlobal(name), str(key), str(), int(count), *_):
                claimed[key] = max(claimed.get(key, 0), count * _item_bytes(name))
                if count < 0 or claimed[key] > size_of(key):
                    raise _oversize_error(path, f"a tensor of {count:,} numbers")
            case _:
                raise unreadable_error(
                    path, "an unusual reference", "a pickle of more than weights"
                )
    if sum(claimed.values()) > path.stat().st_size:
        raise _oversize_error(path, f"tensors of {sum(claimed.values()):,} bytes")


@functools.cache
def _item_bytes(storage_type: str) -> int:
    """Bytes per element of a storage type, such as `torch.FloatStorage`."""
    kind = getattr(torch, storage_type.rpartition(".")[2], None)
    with warnings.catch_warnings():
        # Asking for the type of a typed storage is deprecated; files still name them.
        warnings.simplefilter("ignore")
        dtype = getattr(kind, "dtype", None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 1


def _oversize_error(path: Path, found: str) -> WeightsError:
    return WeightsError(
        "the file claims more than it holds",
        file=path,
        found=f"{found} in a file of {path.stat().st_size:,} bytes",
        expected="tensors that the file holds in full",
        fix="get it again from its publisher: it is damaged, or made to do harm",
    )


def _load_error(path: Path, error: Exception, trust: Sequence[str]) -> WeightsError:
    """The error for a file that torch refused after all."""
    text = str(error)
    # Classes that a pickle reaches through others are not named in it.
    hidden = re.search(r"but got <class '([\w.]+)'>", text)
    if hidden:
        return untrusted_error(path, [hidden.group(1)], trust)
    return unreadable_error(path, error, "a damaged or incomplete archive" if "zip" in text else "")
