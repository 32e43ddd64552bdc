"""Voxels that show nothing: empty margins around a scan, and fill values that mark the outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Box = tuple[slice, slice, slice]

_CODES = (-1000, -1024, -2000, -2048, -3024, -9999, 9999, -32767, -32768, 32767, 65535)
"""Values that programs write where a scan ends; so are all beyond `_LARGEST`."""
_LARGEST = 1e15
_CODE_DISTANCE, _OTHER_DISTANCE = 0.25, 3.0
"""How far such a value, or any other, lies from its neighbour, in widths of all other values."""
_OTHER_SHARE, _OTHER_VOXELS = 1e-4, 20
"""Smallest share and number of voxels of another value: fewer are outliers."""
_SAMPLED_VOX = 200_000
"""Percentiles are taken of about so many voxels."""
_EVEN = 0.02
"""Values that differ by less than this share of the interquartile range are one value."""


@dataclass(frozen=True)
class FillValue:
    """A value that marks voxels as outside of the scan, and the number of those voxels."""

    value: float
    voxels: int


def find_fill_values(array: Array) -> list[FillValue]:
    """The values of an image, of any shape, that mark the outside of the scan.

    Such a value is the smallest or largest of the image, and far from all others. 0 is never
    one: where nothing was measured, it is what a scanner gives.
    """
    found: list[FillValue] = []
    rest = array.ravel("K")  # in the order of the memory, so that nothing is copied
    while fill := _find_one(rest, array.size):
        found.append(fill)
        rest = rest[rest != fill.value]
    return found


def fill_mask(array: Array, fills: Sequence[FillValue]) -> npt.NDArray[np.bool_]:
    """Where an image has one of these values; of its shape."""
    return np.isin(array, [fill.value for fill in fills])


def fill_with_mean(array: Array, mask: npt.NDArray[np.bool_] | None) -> Array:
    """An image whose masked voxels have the mean of the others; None masks none."""
    return array if mask is None else np.where(mask, array[~mask].mean(dtype=np.float64), array)


def find_content_box(channels: Sequence[Array]) -> Box:
    """The part of an image, (X, Y, Z) in each channel, without its empty margin.

    A margin consists of outer planes with one value each, up to rounding, in every channel. An
    image that has nothing else is left whole.
    """
    parts = [_Channel(channel) for channel in channels]
    whole = [(0, size) for size in channels[0].shape]
    ends = list(whole)
    unchecked = [(axis, side) for axis in range(3) for side in (0, -1)]
    while unchecked:
        axis, side = unchecked.pop()
        first = ends[axis]
        while ends[axis][0] < ends[axis][1] and _is_empty(parts, ends, axis, side):
            start, stop = ends[axis]
            ends[axis] = (start + 1, stop) if side == 0 else (start, stop - 1)
        if ends[axis][0] == ends[axis][1]:
            ends = whole
            break
        if ends[axis] != first:  # planes of the other axes are smaller than before
            unchecked = [(other, end) for other in range(3) if other != axis for end in (0, -1)]
            unchecked.append((axis, -1 - side))
    x, y, z = (slice(start, stop) for start, stop in ends)
    return (x, y, z)


def box_of(mask: npt.NDArray[np.bool_]) -> Box:
    """The smallest box that holds a mask, (X, Y, Z); all of it, if it is empty."""
    ends = []
    for axis, size in enumerate(mask.shape):
        found = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != axis)))
        ends.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, size))
    x, y, z = ends
    return (x, y, z)


@dataclass(frozen=True, eq=False)
class _Channel:
    """A channel of an image, and how much the values of an empty plane of it may differ."""

    array: Array

    @cached_property
    def most(self) -> float:
        """No rounding is larger; percentiles take longer than all else."""
        return _EVEN * (float(self.array.max()) - float(self.array.min()))

    @cached_property
    def rounding(self) -> float:
        """Values 0 and 1 are one value where tissue has hundreds."""
        step = max(math.ceil((self.array.size / _SAMPLED_VOX) ** (1 / 3)), 1)
        sample = self.array[::step, ::step, ::step].astype(np.float64)
        low, high = np.percentile(sample, [25, 75])
        return _EVEN * float(high - low)

    def is_even(self, plane: tuple[Any, ...]) -> bool:
        """Whether a plane has one value, up to rounding."""
        values = self.array[plane]
        spread = float(values.max()) - float(values.min())
        return spread <= self.most and spread <= self.rounding


def _is_empty(
    channels: Sequence[_Channel], ends: Sequence[tuple[int, int]], axis: int, side: int
) -> bool:
    """Whether the first plane (side 0) or the last one (-1) of a box has one value per channel."""
    place: list[Any] = [slice(*end) for end in ends]
    place[axis] = ends[axis][0] if side == 0 else ends[axis][1] - 1
    return all(channel.is_even(tuple(place)) for channel in channels)


def _find_one(values: Array, size: int) -> FillValue | None:
    """A fill value among the voxels that are left of an image of a size."""
    if not len(values):
        return None
    for extreme in (values.max(), values.min()):
        value = float(extreme)
        is_code = value in _CODES or abs(value) > _LARGEST
        at_value = values == extreme
        count = int(np.count_nonzero(at_value))
        if value == 0 or count < (1 if is_code else max(_OTHER_SHARE * size, _OTHER_VOXELS)):
            continue
        others = values[~at_value]
        if not len(others):
            return None
        sample = others[:: max(len(others) // _SAMPLED_VOX, 1)].astype(np.float64)
        low, high = np.percentile(sample, [0.5, 99.5])
        nearest = float(others.max() if value > high else others.min())
        distance = _CODE_DISTANCE if is_code else _OTHER_DISTANCE
        if high > low and abs(value - nearest) > distance * (high - low):
            return FillValue(value, count)
    return None
