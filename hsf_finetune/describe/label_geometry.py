"""What the headers say: voxel sizes, shapes, and whether labels lie on their images' grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np

from hsf_finetune.data.volumes.affines import Affine, corner_shift_mm, voxel_size_mm
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_hdf5, read_shape
from hsf_finetune.describe.layouts.base_layout import Annotated, Doubt
from hsf_finetune.system.errors import DataError, UserError

_MOST_CASES = 300
_ATTRIBUTES = ("spacing", "voxel_size", "voxelsize", "voxel_spacing", "pixdim", "resolution")
_DIFFERENT = 1.1


@dataclass(frozen=True)
class Geometry:
    """What the headers of the cases say.

    Args:
        spacing_mm: smallest, middle and largest voxel size along each axis, (3, 3) rows.
        largest_vox: the largest size along each axis.
        given_spacing_mm: what the YAML has to say for HDF5 files that do not say it.
        doubts: what is not certain.
        refused: cases that cannot be used, and why.
    """

    spacing_mm: tuple[tuple[float, ...], ...]
    largest_vox: tuple[int, ...]
    given_spacing_mm: tuple[float, ...] | None
    doubts: tuple[Doubt, ...]
    refused: tuple[tuple[Annotated, str], ...]


def look_at_headers(cases: Sequence[Annotated]) -> Geometry:
    """Reads the headers of images and labels, of the first few hundred cases.

    Raises:
        DataError: no image's header can be read.
    """
    doubts: list[Doubt] = []
    given = _given_spacing(cases, doubts)
    spacings, shapes = [], []
    refused: list[tuple[Annotated, str]] = []
    for case in cases[:_MOST_CASES]:
        try:
            headers = [read_shape(_with(item.ref, given)) for item in case.items]
        except UserError as error:
            refused.append((case, error.what))
            continue
        shape, affine = headers[0]
        why = _misfit(headers)
        if why:
            refused.append((case, why))
            continue
        spacings.append(voxel_size_mm(affine))
        shapes.append(shape[:3])
    if not shapes:
        case, why = refused[0]
        raise DataError(
            "no case can be used", file=case.channels[0].ref, found=f"{why} ({case.label.ref})"
        )
    table = np.array(spacings)
    rows = np.stack([table.min(axis=0), np.median(table, axis=0), table.max(axis=0)]).round(3)
    if (rows[2] > rows[0] * _DIFFERENT).any():
        low, middle, high = (" x ".join(f"{size:g}" for size in row) for row in rows.tolist())
        text = f"voxel sizes differ, {low} to {high} mm; one size for all: {middle}"
        doubts.append(Doubt("target_spacing_mm", text))
    return Geometry(
        tuple(tuple(row) for row in rows.tolist()),
        tuple(int(n) for n in np.max(shapes, axis=0)),
        given,
        tuple(doubts),
        tuple(refused),
    )


# -------------------------------------------------------------------- internals
def _misfit(headers: Sequence[tuple[tuple[int, ...], Affine]]) -> str:
    """Why channels and label cannot be used together; empty if they can."""
    shape, affine = headers[0]
    for other, matrix in headers:
        if len(other) < 3 or any(n > 1 for n in other[3:]):
            return f"not three-dimensional, shape {other}"
        if other[:3] != shape[:3]:
            return f"the label is of another shape, {other[:3]} instead of {shape[:3]}"
        shift = corner_shift_mm(affine, matrix, shape[:3])
        if shift > max(1e-2, 0.02 * min(voxel_size_mm(affine))):
            return "the label lies on another grid than its image"
    return ""


def _with(ref: VolumeRef, spacing_mm: tuple[float, ...] | None) -> VolumeRef:
    return replace(ref, spacing_mm=spacing_mm) if is_hdf5(ref.path) else ref


def _given_spacing(cases: Sequence[Annotated], doubts: list[Doubt]) -> tuple[float, ...] | None:
    """The voxel size to write for HDF5 files without one that discovery reads."""
    silent = [
        item.ref
        for case in cases[:_MOST_CASES]
        for item in case.items
        if is_hdf5(item.ref.path) and not _says_its_size(item.ref)
    ]
    if not silent:
        return None
    found = _other_attribute(silent[0])
    if found is not None:
        name, size = found
        text = f"read from the attribute '{name}' of {silent[0].path.name}: are these mm?"
    else:
        size = (1.0, 1.0, 1.0)
        text = (
            "the files do not say how large a voxel is; 1 mm is a guess, and so is every distance"
        )
    doubts.append(Doubt("spacing_mm", text))
    return size


def _says_its_size(ref: VolumeRef) -> bool:
    try:
        read_shape(ref)
    except DataError:
        return False
    return True


def _other_attribute(ref: VolumeRef) -> tuple[str, tuple[float, ...]] | None:
    with h5py.File(ref.path, "r") as file:
        attributes = {**file.attrs, **file[ref.key].attrs}
    for name, value in attributes.items():
        sizes = np.asarray(value).ravel()
        is_size = name.lower() in _ATTRIBUTES and sizes.dtype.kind in "iuf" and sizes.shape == (3,)
        if is_size and (sizes > 0).all():
            return name, tuple(float(size) for size in sizes)
    return None
