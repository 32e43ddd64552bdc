"""Thumbnails of a case, by which it is compared with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hsf_finetune.check.case_facts import EDGE_VOX, STEPS_PER_STD, Thumbnail, Thumbnails

Array = npt.NDArray[np.float32]
Ends = Sequence[tuple[float, float]]
"""Start and end of a cube along each axis, in voxels of the image."""

_CROP_FACTOR = 1.6
"""Edge length of the crop around a label, in lengths of the label."""


def make_thumbnails(
    image: Array, rows: npt.NDArray[np.uint8], box: Sequence[slice] | None
) -> Thumbnails:
    """The thumbnails of a case along RAS+ axes.

    Args:
        image: (X, Y, Z), z-normalised.
        rows: label rows, (X, Y, Z).
        box: around the foreground; None where the label is empty.
    """
    whole = _shrink(image, [(0.0, float(n)) for n in image.shape])
    if box is None:
        return Thumbnails(whole)
    ends = []
    for part in box:
        middle = (part.start + part.stop) / 2
        half = _CROP_FACTOR * (part.stop - part.start) / 2
        ends.append((middle - half, middle + half))
    crop_rows = ndimage.map_coordinates(rows, _grid(ends), order=0, mode="constant", cval=0)
    return Thumbnails(whole, _shrink(image, ends), crop_rows.astype(np.int8))


def _grid(ends: Ends) -> npt.NDArray[np.float64]:
    """Positions of a thumbnail's voxels in the image, (3, N, N, N)."""
    axes = [a + (np.arange(EDGE_VOX) + 0.5) * (b - a) / EDGE_VOX - 0.5 for a, b in ends]
    return np.array(np.meshgrid(*axes, indexing="ij"))


def _shrink(image: Array, ends: Ends) -> Thumbnail:
    """A part of the image as a thumbnail; each voxel is a mean over about its own size."""
    sizes = [max(round((b - a) / EDGE_VOX), 1) for a, b in ends]
    starts = [max(int(a) - n, 0) for (a, _), n in zip(ends, sizes, strict=True)]
    stops = [int(b) + n + 1 for (_, b), n in zip(ends, sizes, strict=True)]
    part = image[tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))]
    smooth = ndimage.uniform_filter(part, sizes)
    positions = _grid(ends) - np.array(starts).reshape(3, 1, 1, 1)
    cube = np.asarray(ndimage.map_coordinates(smooth, positions, order=1, mode="nearest"))
    normal = (cube - cube.mean()) / max(float(cube.std()), 1e-12)
    return np.asarray(np.clip(np.round(normal * STEPS_PER_STD), -127, 127), dtype=np.int8)
