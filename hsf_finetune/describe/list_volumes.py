"""Every volume below a folder, including those inside HDF5 files."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.discovery.pairing import is_hidden, split_suffix
from hsf_finetune.data.volumes.dicom_series import is_dicom_file, is_dicom_folder
from hsf_finetune.data.volumes.read_volume import (
    FOREIGN,
    SUFFIXES,
    VolumeRef,
    is_hdf5,
    is_volume,
    stem,
)
from hsf_finetune.describe.layouts.base_layout import ListedVolume
from hsf_finetune.system.errors import DataError
from hsf_finetune.system.walk_folder import paths_below


@dataclass(frozen=True)
class FolderListing:
    """The volumes of a folder, in order of their paths; files that cannot be used, and why."""

    root: Path
    volumes: tuple[ListedVolume, ...]
    unreadable: tuple[tuple[Path, str], ...]


def list_volumes(folder: Path) -> FolderListing:
    """Lists the volumes below a folder, without hidden files; a folder of DICOM files is one.

    Raises:
        DataError: it is no folder, or contains no volume.
    """
    root = folder.expanduser().resolve()
    if not root.is_dir():
        raise DataError("not a folder", file=folder, expected="the folder of your data")
    volumes: list[ListedVolume] = []
    unreadable: list[tuple[Path, str]] = []
    others: Counter[str] = Counter()
    dicom: set[Path] = set()
    above, folders = root, tuple[str, ...]()
    for path in paths_below(root):
        if path.parent != above:  # files of one folder share its texts, and recurring names theirs
            above, folders = path.parent, path.relative_to(root).parts[:-1]
        suffix = split_suffix(path.name, (*SUFFIXES, *FOREIGN))[1].lower() or path.suffix.lower()
        if is_hidden(path, root) or (path.parent in dicom and is_dicom_file(path)):
            continue
        if path.is_dir():
            if is_dicom_folder(path):
                dicom.add(path)
                volumes.append(ListedVolume(VolumeRef(path), folders, path.name))
            continue
        if not path.is_file():
            unreadable.append((path, "a link that leads to no file"))
        elif not is_volume(path):
            others[suffix] += 1
            if suffix in FOREIGN:
                unreadable.append((path, f"{suffix} files are not read: convert them to NIfTI"))
        elif is_hdf5(path):
            found, why = list_hdf5(path, root)
            volumes += found
            unreadable += [(path, why)] if why else []
        else:
            volumes.append(ListedVolume(VolumeRef(path), folders, sys.intern(stem(path))))
    if not volumes:
        raise _no_volumes(root, others, unreadable)
    return FolderListing(root, tuple(volumes), tuple(unreadable))


def list_hdf5(path: Path, root: Path) -> tuple[list[ListedVolume], str]:
    """The three-dimensional datasets of an HDF5 file, and why there are none."""
    import h5py  # imported late, as in `open_dataset`

    keys: list[str] = []
    shapes: list[str] = []

    def visit(name: str, node: object) -> None:
        if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "biuf":
            return
        shape = node.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) == 3 and min(shape) > 1:
            keys.append(name)
        elif len(shape) > 1:
            shapes.append(f"{name} {node.shape}")

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        return [], f"cannot be read: {error}"
    folders = path.relative_to(root).parts[:-1]
    if not keys:
        return [], f"no three-dimensional dataset inside ({', '.join(shapes[:3]) or 'none at all'})"
    if len(keys) == 1 and "/" not in keys[0]:
        return [ListedVolume(VolumeRef(path, keys[0]), folders, stem(path))], ""
    volumes = []
    for key in keys:
        *groups, name = key.split("/")
        volumes.append(ListedVolume(VolumeRef(path, key), (*folders, stem(path), *groups), name))
    return volumes, ""


def _no_volumes(root: Path, others: Counter[str], unreadable: list[tuple[Path, str]]) -> DataError:
    foreign = [f"{n} {suffix} files" for suffix, n in others.items() if suffix in FOREIGN]
    found = "; ".join([f"{path.name}: {why}" for path, why in unreadable[:3]] + foreign)
    fix = "convert the files to NIfTI, for example with dcm2niix or mri_convert"
    return DataError(
        "the folder contains no volume that can be read",
        file=root,
        found=found or f"{others.total()} files of other kinds",
        expected=f"{', '.join(SUFFIXES)} files, each three-dimensional",
        fix=fix if foreign else None,
    )
