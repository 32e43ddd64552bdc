"""Small pictures of a case, by which it is compared with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hsf_finetune.check.facts import SIDE_VOX, STEPS_PER_STD, Portrait, Small

Array = npt.NDArray[np.float32]

_MARGIN = 1.6
"""Edge of the picture around a label, in lengths of the label."""


def portrait_of(
    image: Array, rows: npt.NDArray[np.uint8], drawn: Sequence[slice] | None
) -> Portrait:
    """The pictures of a case along RAS+ axes.

    Args:
        image: (X, Y, Z).
        rows: label rows, likewise.
        drawn: box around what is drawn; None where nothing is.
    """
    ends = [(0.0, float(n)) for n in image.shape]
    view = _steps(_sampled(image, ends))
    if drawn is None:
        return Portrait(view)
    around = []
    for box in drawn:
        middle, half = (box.start + box.stop) / 2, _MARGIN * (box.stop - box.start) / 2
        around.append((middle - half, middle + half))
    points = _points(around)
    labels = ndimage.map_coordinates(rows, points, order=0, mode="constant", cval=0)
    return Portrait(view, _steps(_sampled(image, around)), labels.astype(np.int8))


def _points(ends: Sequence[tuple[float, float]]) -> npt.NDArray[np.float64]:
    """Voxel positions of a picture's voxels, (3, N, N, N)."""
    axes = [a + (np.arange(SIDE_VOX) + 0.5) * (b - a) / SIDE_VOX - 0.5 for a, b in ends]
    return np.array(np.meshgrid(*axes, indexing="ij"))


def _sampled(image: Array, ends: Sequence[tuple[float, float]]) -> Array:
    """Means around the picture's voxels, each over about a voxel of the picture."""
    sizes = [max(round((b - a) / SIDE_VOX), 1) for a, b in ends]
    starts = [max(int(a) - n, 0) for (a, _), n in zip(ends, sizes, strict=True)]
    stops = [int(b) + n + 1 for (_, b), n in zip(ends, sizes, strict=True)]
    cut = image[tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))]
    smooth = ndimage.uniform_filter(cut, sizes)
    points = _points(ends) - np.array(starts).reshape(3, 1, 1, 1)
    return np.asarray(ndimage.map_coordinates(smooth, points, order=1, mode="nearest"))


def _steps(picture: Array) -> Small:
    normal = (picture - picture.mean()) / max(float(picture.std()), 1e-12)
    return np.asarray(np.clip(np.round(normal * STEPS_PER_STD), -127, 127), dtype=np.int8)
