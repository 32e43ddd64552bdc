"""The scans of a folder: what `init` would call images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hsf_finetune.data.discovery.pairing import glob_files, is_hidden
from hsf_finetune.data.volumes.read_volume import FOREIGN, VolumeRef, is_volume
from hsf_finetune.describe.layouts.base_layout import ListedVolume
from hsf_finetune.describe.layouts.by_name_layout import is_label, names_label
from hsf_finetune.describe.list_volumes import list_volumes
from hsf_finetune.system.errors import DataError

_ARRAYS = (".zarr", ".npz", ".npy")
"""Formats in which anything may be stored, images among it."""


@dataclass(frozen=True)
class FolderScans:
    """The scans of a folder.

    Args:
        scans: the files, and which of several HDF5 datasets; files in formats that are not read
            are among them, so that each is named as one that could not be segmented.
        skipped: files that are no scans, and why.
    """

    scans: tuple[VolumeRef, ...]
    skipped: tuple[tuple[Path, str], ...]


def find_scans(folder: Path, pattern: str | None, key: str | None, output: Path) -> FolderScans:
    """The scans of a folder, in order of their paths.

    Args:
        folder: to look in.
        pattern: glob of the files to take, below the folder; None takes what is not named like
            a label.
        key: HDF5 dataset inside the files.
        output: folder of the segmentations, which are no scans.

    Raises:
        DataError: there is no scan.
    """
    ...
