"""Phantoms of a head with a structure on each side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

Array = npt.NDArray[Any]

TISSUES = (
    ((0, 0, 0), (75, 92, 80), 60),
    ((0, 0, 0), (69, 86, 74), 20),
    ((0, 2, 2), (64, 80, 68), 110),
    ((0, 2, 6), (50, 64, 50), 140),
    ((14, 10, 10), (7, 30, 12), 30),
    ((-14, 10, 10), (7, 30, 12), 30),
    ((0, -45, -40), (40, 25, 18), 90),
    ((30, 75, -20), (14, 14, 12), 170),
    ((-30, 75, -20), (14, 14, 12), 170),
)
"""Centre and half axes in mm, and intensity; later ones lie over earlier ones."""
SIDES = {1: ((27, -18, -14), (8, 20, 8)), 2: ((-27, -18, -14), (8, 20, 8))}
"""The structures, right and left."""


def affine_map(
    degrees: Sequence[float], scale: Sequence[float], shift_mm: Sequence[float]
) -> Array:
    """4x4, from one head to another."""
    made = np.eye(4)
    made[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(scale)
    made[:3, 3] = shift_mm
    return made


def draw_head(
    shape: Sequence[int], affine: Array, moved: Array | None = None
) -> tuple[Array, Array]:
    """Image and structures, (X, Y, Z), of a head that was moved by a 4x4 map."""
    to_head = np.linalg.inv(np.eye(4) if moved is None else moved) @ affine
    place = np.indices(shape).reshape(3, -1).T @ to_head[:3, :3].T + to_head[:3, 3]
    image, labels = np.zeros(len(place), np.float32), np.zeros(len(place), np.uint8)

    def inside(centre: Sequence[float], half: Sequence[float]) -> Array:
        found: Array = (((place - centre) / np.array(half)) ** 2).sum(axis=1) < 1
        return found

    for centre, half, grey in TISSUES:
        image[inside(centre, half)] = grey
    for value, ellipsoid in SIDES.items():
        labels[inside(*ellipsoid)] = value
    image[labels > 0] = 100
    image += np.random.default_rng(0).normal(0, 3, len(place))
    return image.reshape(shape), labels.reshape(shape)


def save_template(folder: Path) -> tuple[Path, Path]:
    """Writes a head and the structures in it."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = (-90, -108, -90)
    paths = folder / "template.nii.gz", folder / "regions.nii.gz"
    for path, array in zip(paths, draw_head((61, 73, 61), affine), strict=True):
        nib.save(nib.Nifti1Image(array, affine), path)
    return paths
