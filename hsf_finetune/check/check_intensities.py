"""Problems in the voxels of one image: outliers, clipping, lost slices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import EXCLUDE, Finding, warn_about
from hsf_finetune.data.volumes.outside import fill_mask, find_fill_values
from hsf_finetune.data.volumes.read_volume import Volume

_OUTLIER = 25.0
"""Extreme minus median, in units of the 1st or 99th percentile minus median. Real T1 crops
with bright vessels reach 10."""
_CLIPPED = 0.1
"""Share of voxels at the largest value; real crops reach 0.0003."""
_EMPTY = 0.97
"""Share of voxels of one value; skull-stripped heads reach 0.9."""
_FEW_VALUES = 16
_SAMPLED_VOX = 2_000_000
"""Percentiles are taken of about so many voxels."""


def check_intensities(volume: Volume, case: str) -> Iterator[Finding]:
    """What is unusual about a channel that `check_image` accepts; messages name the case."""
    warn = warn_about(volume.ref, case)
    array = volume.array
    counted = array.reshape(-1)
    if fills := find_fill_values(array):
        counted = array[~fill_mask(array, fills)]
        shares = (f"{f.value:g} in {f.voxels / array.size:.2%} of the voxels" for f in fills)
        yield warn(
            "content/fill value",
            "a value far from all others marks voxels as outside of the scan; they are not counted, "
            "and take the mean of the others",
            found=", ".join(shares),
            fix="nothing, if these voxels are outside; otherwise correct them",
        )
    sample = counted[:: max(counted.size // _SAMPLED_VOX, 1)]
    values = np.unique(sample)
    lowest, highest = counted.min(), counted.max()
    if len(values) <= _FEW_VALUES and np.array_equal(values, np.round(values)):
        yield warn(
            "content/few values",
            "the image holds so few values that it looks like a label file",
            found=f"{len(values)} values: {', '.join(f'{v:g}' for v in values[:8])}",
            expected="grey values of a scan",
            fix="check mri: and label: in the dataset's YAML; they may be exchanged",
        )
        return
    yield from _check_extremes(sample, float(lowest), float(highest), warn)
    at_highest = float(np.mean(sample == highest))
    if at_highest > _CLIPPED:
        yield warn(
            "content/clipped",
            "many voxels have the largest value, so bright tissue is cut off",
            found=f"{at_highest:.0%} of the voxels are {highest:g}",
            fix=f"convert the scan again without clipping, or {EXCLUDE}",
        )
    common = max(float(np.mean(sample == lowest)), float(np.mean(sample == np.median(sample))))
    if common > _EMPTY:
        yield warn(
            "content/nearly empty",
            "nearly all voxels have one value",
            found=f"{common:.1%} of the voxels",
            fix=f"crop the scan to the structure, or {EXCLUDE}",
        )
    else:
        yield from _check_slices(array, warn)


def _check_extremes(
    sample: npt.NDArray[np.generic], lowest: float, highest: float, warn: partial[Finding]
) -> Iterator[Finding]:
    """Values far outside of those that nearly all voxels have."""
    low, middle, high = np.percentile(sample.astype(np.float64), [1, 50, 99])
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
        planes = np.moveaxis(array, axis, 0)
        flat = np.array([plane.min() == plane.max() for plane in planes])
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
        same = [
            n
            for n in range(1, len(planes))
            if not flat[n] and planes[n].flat[0] == planes[n - 1].flat[0]
            if np.array_equal(planes[n], planes[n - 1])
        ]
        if same:
            yield warn(
                "content/repeated slices",
                "neighbouring slices are identical",
                found=f"{len(same)} along axis {axis}, such as numbers {same[0] - 1} and {same[0]}",
                fix="convert the scan again; if it was resampled, use its original resolution",
            )
            return
