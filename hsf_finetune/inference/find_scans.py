"""The scans of a folder: what `init` would call images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.discovery.pairing import glob_files, is_hidden
from hsf_finetune.data.volumes.dicom_series import is_dicom_file, is_dicom_folder
from hsf_finetune.data.volumes.read_volume import (
    FOREIGN,
    SUFFIXES,
    VolumeRef,
    has_keys,
    is_hdf5,
    is_volume,
    stem,
)
from hsf_finetune.describe.layouts.by_name_layout import names_label
from hsf_finetune.describe.list_volumes import list_hdf5
from hsf_finetune.system.errors import DataError
from hsf_finetune.system.walk_folder import paths_below

_ARRAYS = (".zarr", ".npz", ".npy")
"""Formats for anything: such a file need not be a scan."""


@dataclass(frozen=True)
class FolderScans:
    """The scans of a folder.

    Args:
        scans: files, with the HDF5 dataset in them, and folders of DICOM files. Those of a
            format that is not read are among them: they are scans that cannot be segmented.
        skipped: files that are no scans, and why.
    """

    scans: tuple[VolumeRef, ...]
    skipped: tuple[tuple[Path, str], ...]


def find_scans(folder: Path, pattern: str | None, key: str | None, output: Path) -> FolderScans:
    """The scans below a folder, in order of their paths.

    Args:
        folder: to look in; it may hold DICOM files itself.
        pattern: glob below the folder, of the files to take; None takes those that are not
            named like a label.
        key: HDF5 dataset inside the files, or DICOM series in the folders.
        output: folder of the segmentations; what it holds is no scan.

    Raises:
        DataError: there is no scan.
    """
    written = output.resolve()
    inside = folder.resolve() in written.parents
    paths = [
        path
        for path in paths_below(folder)
        if not is_hidden(path, folder)
        and not (inside and written in path.parent.resolve().joinpath(path.name).parents)
    ]
    dicom = dict.fromkeys(path for path in (folder, *paths) if is_dicom_folder(path))
    files = [*dicom] + [
        path
        for path in paths
        if not path.is_dir()
        and (is_volume(path) or _is_foreign(path))
        and not (path.parent in dicom and is_dicom_file(path))
    ]
    if pattern is not None:
        wanted = {hit.path for hit in glob_files(folder, pattern)}
        reasons = {path: f"not matched by {pattern}" for path in files if path not in wanted}
        refs = {path: _pick_dataset(path, key) for path in files if path in wanted}
    else:
        folders = [{*path.relative_to(folder).parts[:-1]} for path in files]
        shared = set.intersection(*folders) if folders else set()
        labels = {p for p, f in zip(files, folders, strict=True) if _is_label(p, f - shared)}
        refs = {path: _pick_dataset(path, key) for path in files if path not in labels}
        labels |= {path for path, ref in refs.items() if ref is None}
        reasons = dict.fromkeys(sorted(labels), "named like a label")
    scans = tuple(ref or VolumeRef(path) for path, ref in refs.items() if path not in reasons)
    if not scans:
        raise DataError(
            "the folder holds no scan",
            file=folder,
            found=", ".join(f"{n} {why}" for why, n in Counter(reasons.values()).items()) or None,
            expected="files " + ", ".join(SUFFIXES) + ", or folders of DICOM files",
            fix="--pattern '**/*.nii.gz' takes files whatever their names" if reasons else None,
        )
    return FolderScans(scans, tuple(reasons.items()))


# -------------------------------------------------------------------- internals
def _is_label(path: Path, folders: Collection[str]) -> bool:
    return any(names_label(name) for name in (stem(path), *folders))


def _pick_dataset(path: Path, key: str | None) -> VolumeRef | None:
    """The scan in a file: its one HDF5 dataset that is not named like a label, if there is one.

    None where there are labels alone. Where there are several scans, or none, reading says so.
    """
    if key is not None or not is_hdf5(path):
        return VolumeRef(path, key if has_keys(path) else None)
    keys = [volume.ref.key or "" for volume in list_hdf5(path, path.parent)[0]]
    images = [key for key in keys if not any(names_label(part) for part in key.split("/"))]
    if keys and not images:
        return None
    return VolumeRef(path, images[0] if len(images) == 1 else None)


def _is_foreign(path: Path) -> bool:
    """Whether a file is an image in a format that is not read."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".img") and path.with_suffix(".hdr").exists():
        return False  # the header stands for both
    return name.endswith(FOREIGN) and not name.endswith(_ARRAYS)
