"""Numbers that scans of one kind share, and their labels: to tell a scan that is unlike others."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from hsf_finetune.data.preprocessing.orientation import axes_to, file_axes
from hsf_finetune.data.volumes.grey_values import GreyValues
from hsf_finetune.data.volumes.outside import box_of, find_content_box
from hsf_finetune.data.volumes.read_volume import Volume

Range = tuple[float, float]

_AXES = "xyz"
_PERCENTILES = (5, 25, 50, 75, 95)
_SHARE_LEFT_OUT = 0.02
"""Share of the cases at either end that a range need not hold."""
_PLANES = 32
"""Of at least so many planes along an axis, voxels are compared with those of the next ones."""
_FEW_CASES = 2.0
"""With this number of cases a tolerance is twice as large, with one case three times."""


@dataclass(frozen=True)
class Quantity:
    """One of the numbers.

    Args:
        name: as in `measure_scan`.
        tolerance: how far outside of the usual range it may lie, besides a quarter of the range's
            width; a factor for a length or a volume, which may also be 0 where others are.
        is_size: a length or a volume, of which ratios are compared.
    """

    name: str
    tolerance: float
    is_size: bool = False

    def is_unusual(self, value: float, usual: Range, cases: int) -> bool:
        """Whether a value is far from the range of so many cases."""
        low, high = usual
        more = 1 + _FEW_CASES / cases
        if not self.is_size:
            allowed = (high - low) / 4 + self.tolerance * more
            return not low - allowed <= value <= high + allowed
        allowed = self.tolerance**more * ((high / low) ** 0.25 if low > 0 else 1.0)
        return not low / allowed <= value <= high * allowed


SPACING = tuple(Quantity(f"spacing {axis} mm", 1.25, is_size=True) for axis in _AXES)
EXTENT = tuple(Quantity(f"extent {axis} mm", 1.5, is_size=True) for axis in _AXES)
SMOOTHNESS = Quantity("smoothness", 0.05)
PIECES = Quantity("share of the largest piece", 0.1)
BALANCE = Quantity("brightest and darkest 5 %", 0.1)
BRIGHTNESS = (*(Quantity(f"brightness {percent} %", 0.25) for percent in _PERCENTILES), BALANCE)


def volume_of(class_name: str) -> Quantity:
    """The volume of a class, in mm3."""
    return Quantity(f"volume {class_name} mm3", 2.0, is_size=True)


def measure_scan(scan: Volume) -> dict[str, float]:
    """Voxel size, extent, smoothness and brightness of a scan, without its empty margin.

    Smoothness is the correlation of neighbouring voxels, the mean over the axes: about 0.9 for
    anatomy, 0 for noise. Brightness is a percentile of the z-normalised voxels. The sum of the
    5th and 95th changes its sign where the contrast is inverted.
    """
    grey = scan.grey_in(find_content_box([scan.array]))
    deviation = grey.ordered.astype(np.float64)
    mean = float(deviation.mean())
    deviation -= mean
    variance = float(np.dot(deviation, deviation)) / len(deviation)
    order = file_axes(axes_to(scan.affine))
    spacing_mm = [scan.spacing_mm[axis] for axis in order]
    extent_mm = [scan.spacing_mm[axis] * grey.array.shape[axis] for axis in order]
    sizes = zip((*SPACING, *EXTENT), (*spacing_mm, *extent_mm), strict=True)
    std = max(math.sqrt(variance), 1e-12)
    percentiles = ((grey.percentiles(_PERCENTILES) - mean) / std).tolist()
    brightness = [*percentiles, percentiles[0] + percentiles[-1]]
    return {
        **{quantity.name: float(size) for quantity, size in sizes},
        SMOOTHNESS.name: _smoothness(grey, mean),
        **{q.name: value for q, value in zip(BRIGHTNESS, brightness, strict=True)},
    }


def largest_piece(mask: npt.NDArray[np.bool_]) -> float:
    """The largest connected piece's share of a mask, (X, Y, Z); 1 for an empty one."""
    if not mask.any():
        return 1.0
    inside = mask[box_of(mask)]
    pieces, _ = scipy.ndimage.label(inside, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces[inside])
    return float(sizes.max() / sizes.sum())


def usual_ranges(cases: Iterable[Mapping[str, float]]) -> dict[str, Range]:
    """The range of each number that all, or some, of the cases have."""
    values: dict[str, array[float]] = {}
    for case in cases:
        for name, value in case.items():
            values.setdefault(name, array("d")).append(value)
    ends = (_SHARE_LEFT_OUT, 1 - _SHARE_LEFT_OUT)
    return {name: _range(np.quantile(found, ends)) for name, found in values.items()}


def _range(ends: npt.NDArray[Any]) -> Range:
    return (float(ends[0]), float(ends[1]))


def _smoothness(grey: GreyValues, mean: float) -> float:
    """Correlation of voxels with the next ones, the mean over axes longer than one voxel.

    Both factors and their products are of the same planes: those of the middle differ more from
    the mean than those of a margin.
    """
    found = []
    for axis in range(3):
        image = np.moveaxis(grey.array, axis, 0)
        step = max((len(image) - 1) // _PLANES, 1)
        one, following = (
            part[::step].astype(np.float32) - np.float32(mean) for part in (image[:-1], image[1:])
        )
        if grey.inside is not None:
            inside = np.moveaxis(grey.inside, axis, 0)
            both = inside[:-1:step] & inside[1::step]
            one, following = one[both], following[both]
        one, following = one.ravel("K"), following.ravel("K")
        squares = float(np.dot(one, one) + np.dot(following, following)) / 2
        if squares:
            found.append(float(np.dot(one, following)) / squares)
    return float(np.mean(found)) if found else 0.0
