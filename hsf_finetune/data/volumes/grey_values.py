"""The grey values of an image: those that mark its outside, and all others in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.volumes.outside import FillValue, fill_mask, find_fill_values

Array = npt.NDArray[Any]

_SAMPLED_VOX = 2_000_000
"""So many voxels are sorted at most: those of a coarser grid where there are more."""


@dataclass(frozen=True, eq=False)
class GreyValues:
    """The voxels of an image that are not outside of the scan.

    Sorting them once is faster than a single call of `numpy.percentile`.

    Args:
        array: the image, (X, Y, Z).
    """

    array: Array

    @cached_property
    def fills(self) -> list[FillValue]:
        """Values that mark the outside, see `find_fill_values`."""
        return find_fill_values(self.array)

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_] | None:
        """Where the image has none of these values, (X, Y, Z); None is everywhere."""
        return ~fill_mask(self.array, self.fills) if self.fills else None

    @property
    def counted(self) -> Array:
        """The values of all voxels inside."""
        return self.array.ravel("K") if self.inside is None else self.array[self.inside]

    @cached_property
    def ordered(self) -> Array:
        """The values of a sample of them, ascending; small integers have four bytes."""
        step = 1
        while self.array.size > _SAMPLED_VOX * step**3:
            step += 1
        every = (slice(None, None, step),) * 3
        sample = self.array[every] if self.inside is None else self.array[every][self.inside[every]]
        if not sample.size:
            sample = self.counted
        if sample.dtype.kind != "f" and sample.dtype.itemsize < 4:
            sample = sample.astype(np.int32)  # which NumPy sorts fastest
        return np.sort(sample, axis=None)

    def percentiles(self, percents: Sequence[float]) -> npt.NDArray[np.float64]:
        """Percentiles of the sample, interpolated linearly."""
        places = np.asarray(percents) / 100 * (len(self.ordered) - 1)
        before = np.floor(places).astype(np.int64)
        low = self.ordered[before].astype(np.float64)
        high = self.ordered[np.ceil(places).astype(np.int64)].astype(np.float64)
        found: npt.NDArray[np.float64] = low + (high - low) * (places - before)
        return found

    def share_of(self, value: float) -> float:
        """The share of a value in the sample."""
        own = self.ordered.dtype.type(value)  # of another type, all values would be converted
        if own != value:
            return 0.0
        first, last = (np.searchsorted(self.ordered, own, side) for side in ("left", "right"))
        return float(last - first) / len(self.ordered)
