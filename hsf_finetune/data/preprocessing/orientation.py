"""Where the axes of volumes point; the only module that reads it from an affine."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from hsf_finetune.data.volumes.affines import Affine

Array = npt.NDArray[Any]
Axes = npt.NDArray[np.float64]
"""nibabel's orientation array, (3, 2): for each axis of a file which axis it becomes, and 1, or -1
where it is reversed."""

_RAS: Axes = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])


def axes_to(affine: Affine, orientation: str = "RAS") -> Axes:
    """How the axes of a file become those of an orientation; NaN for an axis without direction."""
    axes = _axes_to_ras(np.ascontiguousarray(affine[:3, :3], dtype=np.float64).tobytes())
    if orientation != "RAS":
        axes = ornt_transform(axes, axcodes2ornt(tuple(orientation)))
    return axes


@lru_cache(maxsize=64)
def _axes_to_ras(directions: bytes) -> Axes:
    """The same for RAS, of the upper left 3x3 of an affine: scans often have the same one."""
    affine = np.eye(4)
    affine[:3, :3] = np.frombuffer(directions).reshape(3, 3)
    axes: Axes = io_orientation(affine)
    axes.setflags(write=False)
    return axes


def axes_between(affine: Affine, other: Affine) -> Axes | None:
    """How the axes of a file become those of another one; None where one has no direction."""
    axes = axes_to(affine), axes_to(other)
    return None if np.isnan(axes).any() else ornt_transform(*axes)


def turn(array: Array, axes: Axes) -> Array:
    """A volume of a file, (X, Y, Z), along other axes."""
    turned: Array = apply_orientation(array, axes)
    return turned


def turn_back(array: Array, axes: Axes) -> Array:
    """A volume along other axes, along those of its file."""
    return turn(array, ornt_transform(_RAS, axes))


def turned_affine(affine: Affine, axes: Axes, file_shape: tuple[int, ...]) -> Affine:
    """The 4x4 matrix from voxels of a turned volume to RAS+ millimetres."""
    turned: Affine = affine @ inv_ornt_aff(axes, file_shape)
    return turned


def file_axes(axes: Axes) -> list[int]:
    """The axis of the file that each of the other axes comes from."""
    order: list[int] = np.argsort(axes[:, 0]).tolist()
    return order


def stored_along(image: nib.nifti1.Nifti1Image, orientation: str) -> nib.nifti1.Nifti1Image:
    """The same image with its voxels stored along the axes of an orientation."""
    turned: nib.nifti1.Nifti1Image = image.as_reoriented(axes_to(image.affine, orientation))
    return turned


def orientation_name(affine: Affine) -> str:
    """Where the axes of a file point, such as `RAS`."""
    return "".join(nib.aff2axcodes(affine))
