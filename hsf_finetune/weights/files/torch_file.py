"""Reads files of torch.save, in its present format or the one before, without running them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.inert_pickle import InertUnpickler, Storage
from hsf_finetune.weights.files.stand_in import StandIn
from hsf_finetune.weights.files.unreadable import plain_pickle_error, unreadable_error

_LARGEST_PICKLE_BYTES = 64 << 20
"""The pickle of an archive holds names and shapes; the numbers are beside it."""
_MAGIC = 0x1950A86A20F9469CFC6C
"""First value in files of the older format."""
_LOCAL_HEADER_BYTES = 30
_STORAGE_TYPES = {
    "BFloat16Storage": torch.bfloat16, "BoolStorage": torch.bool, "ByteStorage": torch.uint8,
    "CharStorage": torch.int8, "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64, "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "IntStorage": torch.int32,
    "LongStorage": torch.int64, "ShortStorage": torch.int16, "UntypedStorage": torch.uint8,
}  # fmt: skip


def load_torch_file(path: Path) -> object:
    """What a file of torch.save (or torch.jit.save) holds, on the CPU: plain data, tensors, and stand-ins.

    Nothing in it is imported or called (`inert_pickle`), and no more memory is set aside
    than the file has bytes.

    Raises:
        WeightsError: the file is damaged, no file of torch.save, or claims more than it
            holds.
    """
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    try:
        return _load_archive(path) if is_archive else _load_old_format(path)
    except (WeightsError, OSError):
        raise
    except Exception as error:
        # Damaged pickles fail in a dozen ways: index, key, type, value, memory errors.
        kind = "archive" if is_archive else "pickle"
        raise unreadable_error(path, error, f"a damaged or incomplete {kind}") from error


# ------------------------------------------------------------------- the present format
def _load_archive(path: Path) -> object:
    records, pickled = _find_records(path)
    folder = pickled.filename[: -len("data.pkl")]
    order = records.get(f"{folder}byteorder")
    if pickled.file_size > _LARGEST_PICKLE_BYTES:
        raise _oversize_error(path, f"a pickle of {pickled.file_size:,} bytes")
    loaded: dict[str, torch.UntypedStorage] = {}
    with path.open("rb") as file:
        if order is not None and _read_record(file, order) != b"little":
            raise _byte_order_error(path)

        def storage(kind: str, key: str, count: int, *_: Any) -> Storage | StandIn:
            dtype = _STORAGE_TYPES.get(kind.rpartition(".")[2])
            if dtype is None:
                return StandIn(kind)
            if key not in loaded:
                record = records.get(f"{folder}data/{key}")
                size = record.file_size if record else 0
                if record is None or not 0 <= count * dtype.itemsize <= size:
                    raise _oversize_error(path, f"a tensor of {count:,} numbers")
                loaded[key] = _empty(size)
                _find_content(file, record)
                if _read_into(file, loaded[key]) < size:
                    raise unreadable_error(path, "an entry beyond the end", "a damaged archive")
            return Storage(loaded[key], dtype)

        stream = io.BytesIO(_read_record(file, pickled))
        return InertUnpickler(stream, storage).load()


def _find_records(path: Path) -> tuple[Mapping[str, zipfile.ZipInfo], zipfile.ZipInfo]:
    """The parts of an archive by name, and the one with the pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise unreadable_error(path, error) from error
    # The program of a TorchScript file is beside its tensors.
    infos = [info for info in infos if "/code/" not in info.filename]
    records = {info.filename: info for info in infos}
    inside = [name for name in records if PurePosixPath(name).name == "data.pkl"]
    if len(inside) != 1:
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
    return records, records[inside[0]]


def _find_content(file: io.BufferedReader, info: zipfile.ZipInfo) -> None:
    """Goes to an uncompressed entry; zipfile would require checksums, which torch may omit."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES:
        raise EOFError("an entry beyond the end")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    file.seek(name_bytes + extra_bytes, io.SEEK_CUR)


def _read_record(file: io.BufferedReader, info: zipfile.ZipInfo) -> bytes:
    _find_content(file, info)
    return file.read(info.file_size)


def _other_archive_error(path: Path, names: Sequence[str]) -> WeightsError:
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    inner = [n for n in names if PurePosixPath(n).suffix in (".ckpt", ".pt", ".pth")]
    fix = f"unpack it, and give {inner[0]}" if inner else "unpack it, and give the checkpoint in it"
    what = "the file is an archive, but not one of torch.save"
    return WeightsError(what, file=path, found=listed or "nothing in it", fix=fix)


# ------------------------------------------------------------------- the older format
def _load_old_format(path: Path) -> object:
    """What torch.save wrote before version 1.6: pickles in a row, then the numbers."""
    left = [path.stat().st_size]
    # Stored before their content, which comes last: key -> bytes, and size of an element.
    stored: dict[str, tuple[torch.UntypedStorage, int]] = {}

    def storage(kind: str, key: str, count: int, view: Any = None) -> Storage | StandIn:
        dtype = _STORAGE_TYPES.get(kind.rpartition(".")[2])
        if dtype is None or (view is not None and not _is_view(view, count)):
            return StandIn(kind)
        if key not in stored:
            claimed = count * dtype.itemsize
            left[0] -= claimed
            if claimed < 0 or left[0] < 0:
                raise _oversize_error(path, f"a tensor of {count:,} numbers")
            stored[key] = (_empty(claimed), dtype.itemsize)
        content = stored[key][0]
        if view is not None:
            first, length = (number * dtype.itemsize for number in view[1:])
            content = content[first : first + length]
        return Storage(content, dtype)

    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            raise unreadable_error(path, "neither an archive nor a pickle")
        file.seek(0)
        if (first := InertUnpickler(file).load()) != _MAGIC:
            raise plain_pickle_error(path, first)
        _, system = InertUnpickler(file).load(), InertUnpickler(file).load()
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise _byte_order_error(path)
        content = InertUnpickler(file, storage).load()
        for key in InertUnpickler(file).load():
            numbers, item_bytes = stored[key]
            (count,) = struct.unpack("<q", file.read(8))
            if count * item_bytes != numbers.nbytes() or _read_into(file, numbers) < len(numbers):
                raise EOFError("the numbers of a tensor end early")
    return content


def _is_view(view: Any, count: int) -> bool:
    """Whether this describes a part of a storage, as the oldest versions of torch wrote."""
    match view:
        case (str(), int(offset), int(size)):
            return offset >= 0 and size >= 0 and offset + size <= count
    return False


# ---------------------------------------------------------------------------- storages
def _empty(size: int) -> torch.UntypedStorage:
    return torch.from_numpy(np.empty(size, np.uint8)).untyped_storage()


def _read_into(file: io.BufferedReader, content: torch.UntypedStorage) -> int:
    """Fills a storage from a file; returns the number of bytes that it has read."""
    array = torch.empty(0, dtype=torch.uint8).set_(content).numpy()
    return file.readinto(array.data)


def _byte_order_error(path: Path) -> WeightsError:
    reason = "numbers in big-endian order"
    return unreadable_error(path, reason, "a checkpoint of a machine with another byte order")


def _oversize_error(path: Path, found: str) -> WeightsError:
    return WeightsError(
        "the file claims more than it holds",
        file=path,
        found=f"{found} in a file of {path.stat().st_size:,} bytes",
        expected="tensors that the file holds in full",
        fix="get it again from its publisher: it is damaged, or made to do harm",
    )
