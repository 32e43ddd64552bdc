"""Problems in the voxels of one image: outliers, clipping, lost slices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import EXCLUDE, Finding
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
    """What is unusual about an image that `check_image` accepts.

    Args:
        volume: one channel.
        case: its name, for messages.
    """
    file = str(volume.ref)
    array = volume.array
    sample = array.reshape(-1)[:: max(array.size // _SAMPLED_VOX, 1)]
    values = np.unique(sample)
    lowest, highest = array.min(), array.max()
    if len(values) <= _FEW_VALUES and np.array_equal(values, np.round(values)):
        yield Finding(
            "warned",
            "content/few values",
            "the image holds so few values that it looks like a label file",
            file,
            case,
            f"{len(values)} values: {', '.join(f'{v:g}' for v in values[:8])}",
            "grey values of a scan",
            "check mri: and label: in the dataset's YAML; they may be exchanged",
        )
        return
    yield from _check_extremes(sample, float(lowest), float(highest), file, case)
    at_highest = float(np.mean(sample == highest))
    if at_highest > _CLIPPED:
        yield Finding(
            "warned",
            "content/clipped",
            "many voxels have the largest value, so bright tissue is cut off",
            file,
            case,
            f"{at_highest:.0%} of the voxels are {highest:g}",
            fix=f"convert the scan again without clipping, or {EXCLUDE}",
        )
    common = max(float(np.mean(sample == lowest)), float(np.mean(sample == np.median(sample))))
    if common > _EMPTY:
        yield Finding(
            "warned",
            "content/nearly empty",
            "nearly all voxels have one value",
            file,
            case,
            f"{common:.1%} of the voxels",
            fix=f"crop the scan to the structure, or {EXCLUDE}",
        )
    else:
        yield from _check_slices(array, file, case)


# -------------------------------------------------------------------- internals
def _check_extremes(
    sample: npt.NDArray[np.generic], lowest: float, highest: float, file: str, case: str
) -> Iterator[Finding]:
    low, middle, high = np.percentile(sample.astype(np.float64), [1, 50, 99])
    for extreme, usual in ((highest, high), (lowest, low)):
        width = abs(usual - middle) or max(high - middle, middle - low)
        if width and abs(extreme - middle) > _OUTLIER * width:
            yield Finding(
                "warned",
                "content/outlier",
                "a few values are so far from the others that z-normalisation flattens the tissue",
                file,
                case,
                f"{extreme:g}, while 98 % of the voxels lie between {low:g} and {high:g}",
                fix=f"clip the image, for example to {low:g} ... {high:g}",
            )


def _check_slices(array: npt.NDArray[np.generic], file: str, case: str) -> Iterator[Finding]:
    """Slices inside the volume that are constant, or equal to their neighbour."""
    for axis in range(3):
        planes = np.moveaxis(array, axis, 0)
        flat = np.array([plane.min() == plane.max() for plane in planes])
        inside = np.flatnonzero(~flat)
        lost = np.flatnonzero(flat[inside[0] : inside[-1]]) + inside[0] if len(inside) else inside
        if len(lost):
            yield Finding(
                "warned",
                "content/lost slices",
                "slices inside the volume hold a single value",
                file,
                case,
                f"{len(lost)} along axis {axis}, such as number {lost[0]}",
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
            yield Finding(
                "warned",
                "content/repeated slices",
                "neighbouring slices are identical",
                file,
                case,
                f"{len(same)} along axis {axis}, such as numbers {same[0] - 1} and {same[0]}",
                fix="convert the scan again; if it was resampled, use its original resolution",
            )
            return
