"""Problems in the voxels of one image: outliers, clipping, lost slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import EXCLUDE, Finding, warn_about
from hsf_finetune.data.volumes.read_volume import Volume

_OUTLIER = 25.0
"""Extreme minus median, in units of the 1st or 99th percentile minus median. Real T1 crops
with bright vessels reach 10."""
_CLIPPED = 0.1
"""Share of voxels at the largest value; real crops reach 0.0003."""
_EMPTY = 0.97
"""Share of voxels of one value; skull-stripped heads reach 0.9."""
_FEW_VALUES = 16


def check_intensities(volume: Volume, case: str) -> Iterator[Finding]:
    """What is unusual about a channel that `check_image` accepts; messages name the case."""
    warn = warn_about(volume.ref, case)
    array, grey = volume.array, volume.grey
    if grey.fills:
        shares = (f"{f.value:g} in {f.voxels / array.size:.2%} of the voxels" for f in grey.fills)
        yield warn(
            "content/fill value",
            "a value far from all others marks voxels as outside of the scan; they are not counted, "
            "and take the mean of the others",
            found=", ".join(shares),
            fix="nothing, if these voxels are outside; otherwise correct them",
        )
    counted = grey.counted
    lowest, highest = float(counted.min()), float(counted.max())
    values = grey.ordered[np.append(True, grey.ordered[1:] != grey.ordered[:-1])]
    if len(values) <= _FEW_VALUES and np.array_equal(values, np.round(values)):
        yield warn(
            "content/few values",
            "the image holds so few values that it looks like a label file",
            found=f"{len(values)} values: {', '.join(f'{v:g}' for v in values[:8])}",
            expected="grey values of a scan",
            fix="check mri: and label: in the dataset's YAML; they may be exchanged",
        )
        return
    low, middle, high = grey.percentiles([1, 50, 99]).tolist()
    yield from _check_extremes((lowest, low, middle, high, highest), warn)
    at_highest = grey.share_of(highest)
    if at_highest > _CLIPPED:
        yield warn(
            "content/clipped",
            "many voxels have the largest value, so bright tissue is cut off",
            found=f"{at_highest:.0%} of the voxels are {highest:g}",
            fix=f"convert the scan again without clipping, or {EXCLUDE}",
        )
    common = max(grey.share_of(lowest), grey.share_of(middle))
    if common > _EMPTY:
        yield warn(
            "content/nearly empty",
            "nearly all voxels have one value",
            found=f"{common:.1%} of the voxels",
            fix=f"crop the scan to the structure, or {EXCLUDE}",
        )
    else:
        yield from _check_slices(array, warn)


def _check_extremes(ends: Sequence[float], warn: partial[Finding]) -> Iterator[Finding]:
    """Values far outside of those that nearly all voxels have.

    Args:
        ends: the lowest value, the 1st, 50th and 99th percentile, and the highest value.
        warn: makes warnings.
    """
    lowest, low, middle, high, highest = ends
    for extreme, usual in ((highest, high), (lowest, low)):
        width = abs(usual - middle) or max(high - middle, middle - low)
        if width and abs(extreme - middle) > _OUTLIER * width:
            yield warn(
                "content/outlier",
                "a few values are so far from the others that z-normalisation flattens the tissue",
                found=f"{extreme:g}, while 98 % of the voxels lie between {low:g} and {high:g}",
                fix=f"clip the image, for example to {low:g} ... {high:g}",
            )


def _check_slices(array: npt.NDArray[np.generic], warn: partial[Finding]) -> Iterator[Finding]:
    """Slices inside the volume that are constant, or equal to their neighbour."""
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        lowest, highest = array.min(axis=others), array.max(axis=others)
        flat = lowest == highest
        inside = np.flatnonzero(~flat)
        lost = np.flatnonzero(flat[inside[0] : inside[-1]]) + inside[0] if len(inside) else inside
        if len(lost):
            yield warn(
                "content/lost slices",
                "slices inside the volume hold a single value",
                found=f"{len(lost)} along axis {axis}, such as number {lost[0]}",
                fix=f"convert the scan again, or {EXCLUDE}",
            )
            return
        planes = np.moveaxis(array, axis, 0)
        alike = (lowest[1:] == lowest[:-1]) & (highest[1:] == highest[:-1])
        alike &= (planes[1:, 0, 0] == planes[:-1, 0, 0]) & ~flat[1:]
        candidates = (np.flatnonzero(alike) + 1).tolist()
        same = [n for n in candidates if np.array_equal(planes[n], planes[n - 1])]
        if same:
            yield warn(
                "content/repeated slices",
                "neighbouring slices are identical",
                found=f"{len(same)} along axis {axis}, such as numbers {same[0] - 1} and {same[0]}",
                fix="convert the scan again; if it was resampled, use its original resolution",
            )
            return
