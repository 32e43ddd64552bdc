"""Affines: 4x4 matrices from voxel indices to RAS+ millimetres."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.system.errors import DataError

Affine = npt.NDArray[np.float64]


def voxel_size_mm(affine: Affine) -> tuple[float, float, float]:
    """Voxel size along the three array axes, in mm."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
    return (x, y, z)


def corner_shift_mm(a: Affine, b: Affine, shape: Sequence[int]) -> float:
    """Largest distance between a volume's corners as two affines place them, in mm.

    Args:
        a: 4x4, from voxel to RAS+ millimetres.
        b: the other 4x4.
        shape: (X, Y, Z) of the volume; further axes are ignored.
    """
    ends = [(0, n - 1) for n in (*shape, 1, 1, 1)[:3]]
    difference = (a - b) @ np.array(np.meshgrid(*ends, 1)).reshape(4, -1)
    return float(np.sqrt((difference[:3] ** 2).sum(axis=0)).max())


def grid_noise_mm(affine: Affine, usual_mm: float, share: float) -> float:
    """How far corners of one grid, written by two programs, may lie apart, in mm.

    This is `usual_mm`, or a share of the smallest voxel size if that is more; of voxels far
    smaller than a scanner's (electron microscopy) never more than half of one.
    """
    size = min(voxel_size_mm(affine))
    return min(max(usual_mm, share * size), 0.5 * size)


def format_affine(affine: Affine) -> str:
    """The upper three rows of an affine as text, for messages."""
    sizes = [size for size in voxel_size_mm(affine) if 0 < size < math.inf]
    places = max(3, 2 - math.floor(math.log10(min(sizes, default=1.0))))
    return "\n".join("  ".join(f"{v:{places + 6}.{places}f}" for v in row) for row in affine[:3])


def hdf5_affine(
    attributes: Mapping[str, Any],
    spacing_mm: Sequence[float] | None,
    affine: Sequence[Sequence[float]] | None,
    file: object,
) -> Affine:
    """The 4x4 affine of an HDF5 dataset, from the file's attributes or else from the YAML.

    A voxel size without an affine means that the stored axes run right, anterior and superior.

    Args:
        attributes: of the HDF5 dataset and its file; `affine` and `spacing_mm` are read.
        spacing_mm: voxel size for a dataset without one.
        affine: 4x4 matrix for a dataset without one.
        file: for messages.

    Raises:
        DataError: the geometry is missing, malformed or contradicts itself.
    """
    if "affine" in attributes:
        return check_affine(attributes["affine"], file)
    stored = attributes.get("spacing_mm")
    given = stored if stored is not None else spacing_mm
    if affine is not None:
        matrix = check_affine(affine, file)
        in_yaml = voxel_size_mm(matrix)
        sizes = in_yaml if stored is None else _check_spacing(stored, file).tolist()
        if not np.allclose(in_yaml, sizes, rtol=0.01):
            raise DataError(
                "the affine of the dataset's YAML contradicts the file's voxel size",
                file=file,
                found=f"{format_affine(matrix)}\nspacing_mm {sizes} in the file",
                fix="correct affine: in the dataset's YAML, or write the attribute affine",
            )
        return matrix
    if given is None:
        raise DataError(
            "the HDF5 dataset does not say how large its voxels are",
            file=file,
            found="attributes " + (", ".join(attributes) or "none"),
            expected="an attribute affine (4x4) or spacing_mm (3)",
            fix="add to the dataset's YAML, for example: spacing_mm: [0.8, 0.8, 0.8]; or give predict "
            "--spacing 0.8 0.8 0.8",
        )
    return np.diag([*_check_spacing(given, file), 1.0])


def check_affine(
    given: object,
    file: object,
    fix: str = "correct the attribute affine, or affine: in the dataset's YAML",
) -> Affine:
    """An affine that was given as numbers, as a (4, 4) array.

    Args:
        given: 4x4 numbers, from voxel to RAS+ millimetres.
        file: for messages.
        fix: what to do about a wrong one.

    Raises:
        DataError: it is no finite, invertible affine.
    """
    matrix = _to_numbers(given)
    if (
        matrix.shape == (4, 4)
        and np.isfinite(matrix).all()
        and np.abs(matrix[3] - (0, 0, 0, 1)).max() < 1e-6
        and np.linalg.det(matrix) != 0
    ):
        return matrix
    raise DataError(
        "the affine does not place voxels in space",
        file=file,
        found=given,
        expected="a finite, invertible 4x4 matrix whose last row is 0 0 0 1",
        fix=fix,
    )


def _check_spacing(given: object, file: object) -> Affine:
    sizes = _to_numbers(given)
    if sizes.shape == (3,) and np.isfinite(sizes).all() and (sizes > 0).all():
        return sizes
    raise DataError(
        "the voxel size is not three positive numbers",
        file=file,
        found=given,
        fix="correct the attribute spacing_mm, or spacing_mm: in the dataset's YAML",
    )


def _to_numbers(given: object) -> Affine:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty(0)
