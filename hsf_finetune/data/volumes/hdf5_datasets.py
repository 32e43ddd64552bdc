"""HDF5 datasets, which only links within their own file lead to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hsf_finetune.system.errors import DataError, UserError

if TYPE_CHECKING:
    import h5py

_MAX_LINKS = 16


@contextmanager
def refuse_damage(file: object) -> Iterator[None]:
    """Makes one error of what libraries raise for a damaged file, which are of many kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = str(error).splitlines() or [""]
        # Of SimpleITK's errors the first line is a place in its own code.
        why = lines[-1 if "SimpleITK" in lines[0] else 0]
        raise DataError(
            "the file is damaged or incomplete",
            file=file,
            found=f"{type(error).__name__}: {why}",
            expected="a complete file of the format that its name says",
            fix="copy or convert it again",
        ) from error


@contextmanager
def open_dataset(path: Path, key: str | None) -> Iterator[h5py.Dataset]:
    """The dataset of an HDF5 file that the key leads to, or the only one of the file.

    Raises:
        DataError: no dataset has that name, none is named of several, or its voxels lie in
            another file, which could be any file of this machine.
    """
    import h5py  # imported late: most scans are no HDF5 files

    with refuse_damage(path), h5py.File(path, "r") as file:
        node = _follow(file, key or "")
        if not isinstance(node, h5py.Dataset):
            found: list[str] = []
            file.visititems(
                lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None
            )
            if key is not None or len(found) != 1:
                several = "holds several datasets and none is named"
                what = several if key is None else f"has no dataset '{key}'"
                raise DataError(
                    f"the HDF5 file {what}",
                    file=path,
                    found=", ".join(found[:20]) or "no dataset at all",
                    fix="predict --key DATASET; key: (or mri_key: and label_key:) in the pattern of a "
                    "dataset's YAML",
                )
            node = file[found[0]]
        if node.external or node.is_virtual:
            raise _in_another_file(node)
        yield node


def _follow(file: h5py.File, key: str) -> object:
    """What a key leads to, by links within the file only; None if that is nothing."""
    import h5py

    names, node, links = key.encode().split(b"/"), file, 0
    while names and isinstance(node, h5py.Group):
        name = names.pop(0)
        if name in (b"", b"."):
            continue
        kind = node.id.links.get_info(name).type if node.id.links.exists(name) else None
        if kind == h5py.h5l.TYPE_SOFT and links < _MAX_LINKS:
            path, links = node.id.links.get_val(name), links + 1
            node = file if path.startswith(b"/") else node
            names = [*path.split(b"/"), *names]
        elif kind == h5py.h5l.TYPE_HARD:
            node = node[name]
        elif kind in (None, h5py.h5l.TYPE_SOFT):
            return None
        else:
            raise _in_another_file(node)
    return None if any(names) else node


def _in_another_file(node: h5py.HLObject) -> DataError:
    return DataError(
        "the HDF5 dataset lies in another file, which is not read",
        file=f"{node.file.filename}:{node.name}",
        found="an external link, external storage or a virtual dataset",
        fix="copy it into the file: h5copy, or h5repack",
    )
