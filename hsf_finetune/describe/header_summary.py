"""Voxel sizes and shapes of the cases, and whether labels lie on their images' grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsf_finetune.data.volumes.affines import (
    Affine,
    corner_shift_mm,
    grid_noise_mm,
    voxel_size_mm,
)
from hsf_finetune.data.volumes.hdf5_datasets import open_dataset
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_hdf5, read_shape
from hsf_finetune.describe.layouts.base_layout import FoundCase, UnsureNote
from hsf_finetune.system.errors import DataError, UserError

_MAX_CASES = 300
_SPACING_NAMES = ("spacing", "voxel_size", "voxelsize", "voxel_spacing", "pixdim", "resolution")
_DIFFERENT_RATIO = 1.1

Header = tuple[tuple[int, ...], Affine]
"""Shape and affine of a volume."""


@dataclass(frozen=True)
class HeaderSummary:
    """What the headers of the cases say.

    Args:
        spacing_mm: smallest, median and largest voxel size along each axis, (3, 3) rows.
        largest_vox: the largest size along each axis.
        given_spacing_mm: the voxel size that the YAML has to give for HDF5 files without one.
        notes: what is not certain.
        refused: cases that cannot be used, and why.
    """

    spacing_mm: tuple[tuple[float, ...], ...]
    largest_vox: tuple[int, ...]
    given_spacing_mm: tuple[float, ...] | None
    notes: tuple[UnsureNote, ...]
    refused: tuple[tuple[FoundCase, str], ...]


def read_headers(cases: Sequence[FoundCase]) -> HeaderSummary:
    """Reads the headers of images and labels, of the first few hundred cases.

    Raises:
        DataError: no case can be used.
    """
    given, notes = _find_given_spacing(cases[:_MAX_CASES])
    spacings, shapes = [], []
    refused: list[tuple[FoundCase, str]] = []
    for case in cases[:_MAX_CASES]:
        try:
            headers = [read_shape(_with_spacing(volume.ref, given)) for volume in case.volumes]
            problem = _compare_headers(headers)
        except UserError as error:
            problem = error.what
        if problem:
            refused.append((case, problem))
            continue
        shape, affine = headers[0]
        spacings.append(voxel_size_mm(affine))
        shapes.append(shape[:3])
    if not shapes:
        case, problem = refused[0]
        raise DataError(
            "no case can be used", file=case.channels[0].ref, found=f"{problem} ({case.label.ref})"
        )
    table = np.array(spacings)
    ends = np.stack([table.min(axis=0), np.median(table, axis=0), table.max(axis=0)])
    rows = np.array([[float(f"{size:.4g}") for size in row] for row in ends.tolist()])
    if (rows[2] > rows[0] * _DIFFERENT_RATIO).any():
        low, median, high = (" x ".join(f"{size:g}" for size in row) for row in rows.tolist())
        text = f"voxel sizes differ, {low} to {high} mm; one size for all: {median}"
        notes.append(UnsureNote("target_spacing_mm", text))
    spacing_mm, largest_vox = (
        tuple(map(tuple, rows.tolist())),
        tuple(np.max(shapes, axis=0).tolist()),
    )
    return HeaderSummary(spacing_mm, largest_vox, given, tuple(notes), tuple(refused))


def _compare_headers(headers: Sequence[Header]) -> str:
    """Why channels and label cannot be used together; empty if they can."""
    shape, affine = headers[0]
    for other, matrix in headers:
        if len(other) < 3 or any(n > 1 for n in other[3:]):
            return f"not three-dimensional, shape {other}"
        if other[:3] != shape[:3]:
            return f"the label is of another shape, {other[:3]} instead of {shape[:3]}"
        shift = corner_shift_mm(affine, matrix, shape[:3])
        if shift > grid_noise_mm(affine, 1e-2, 0.02):
            return "the label lies on another grid than its image"
    return ""


def _with_spacing(ref: VolumeRef, spacing_mm: tuple[float, ...] | None) -> VolumeRef:
    return VolumeRef(ref.path, ref.key, spacing_mm, ref.affine) if is_hdf5(ref.path) else ref


def _find_given_spacing(
    cases: Sequence[FoundCase],
) -> tuple[tuple[float, ...] | None, list[UnsureNote]]:
    """The voxel size to write for HDF5 files that have none which discovery reads."""
    without = [
        volume.ref
        for case in cases
        for volume in case.volumes
        if is_hdf5(volume.ref.path) and not _has_spacing(volume.ref)
    ]
    if not without:
        return None, []
    name, size = _read_spacing_attribute(without[0])
    text = f"read from the attribute '{name}' of {without[0].path.name}: are these mm?"
    if not name:
        text = "the files do not give the voxel size; 1 mm is a guess, and so is every distance"
    return size, [UnsureNote("spacing_mm", text)]


def _has_spacing(ref: VolumeRef) -> bool:
    try:
        read_shape(ref)
    except DataError:
        return False
    return True


def _read_spacing_attribute(ref: VolumeRef) -> tuple[str, tuple[float, ...]]:
    """An attribute that gives the voxel size under another name; 1 mm and no name without one."""
    with open_dataset(ref.path, ref.key) as node:
        attributes = {**node.file.attrs, **node.attrs}
    for name, value in attributes.items():
        sizes = np.asarray(value).ravel()
        usable = sizes.dtype.kind in "iuf" and sizes.shape == (3,) and (sizes > 0).all()
        if usable and name.lower() in _SPACING_NAMES:
            return name, tuple(float(size) for size in sizes)
    return "", (1.0, 1.0, 1.0)
