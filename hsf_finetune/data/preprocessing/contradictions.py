"""Where scans are not what a network's preprocessing is made for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hsf_finetune.config.settings.preprocessing_settings import (
    HSF_PREPROCESSING,
    Ends,
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    Preprocessing,
    WindowIntensity,
    ZScoreIntensity,
    steps_of,
)
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.visible_part import find_box
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.check_volumes import check_same_grid
from hsf_finetune.data.volumes.outside import fill_mask, find_fill_values
from hsf_finetune.data.volumes.read_volume import read_volume
from hsf_finetune.system.errors import DataError

Voxels = npt.NDArray[np.float64]

_SEEN_CASES = 2
"""Cases whose intensities are looked at: what holds for all of them is said."""
_SAMPLED_VOX = 500_000
_SPACING_RATIO = 1.5
"""Ratio of voxel sizes that is worth a warning."""
_USED_SHARE = 0.05
"""Scans that take up less than this of an interval are of another kind."""
_BEYOND_SHARE = 0.3
"""Share of voxels above an interval: of bones, in a window of soft tissue, there are few."""
_FAR_STD = 5.0
"""Scans whose mean is so many standard deviations from a given one are of another kind."""
_CROWDED_SHARE = 0.1
"""Part of a scan's range that holds 99.5 % of its voxels where the rest are outliers."""
_ZERO_SHARE = 0.001
_AIR_HU, _TISSUE_HU = -500.0, 0.0
"""Hounsfield units: the lowest 0.5 % of voxels are below the one, the highest above the other."""


def contrary_spacing(
    value: Preprocessing, wanted_mm: Sequence[float] | None, cases: Sequence[Case]
) -> Iterator[str]:
    """How far the voxel size of the weights is from that of the data.

    Args:
        value: how scans are prepared.
        wanted_mm: voxel size of the weights; None where they do not say.
        cases: those that train.
    """
    if wanted_mm is None or not cases:
        return
    try:
        grids = [VoxelGrid.from_header(case.images[0], HSF_PREPROCESSING) for case in cases]
    except DataError:  # reading the cases refuses it with more words
        return
    own = np.median([grid.spacing_mm for grid in grids], axis=0)
    trained = own if value.spacing_mm is None else np.array(value.spacing_mm)
    ratio, left = _ratio(own, wanted_mm), _ratio(trained, wanted_mm)
    what = (
        f"the weights are for voxels of {sizes_text(wanted_mm)} mm, and those of the data are "
        f"{sizes_text(own.tolist())} mm: {ratio:.2g} times as large or small"
    )
    if left >= _SPACING_RATIO:
        trained_text = sizes_text(trained.tolist())
        yield f"{what}; they are trained at {trained_text} mm: what the weights know of sizes does not hold"
    elif ratio >= _SPACING_RATIO:
        yield f"{what}; scans are resampled (preprocessing.spacing=data keeps them)"


def contrary_intensities(value: Preprocessing, cases: Sequence[Case]) -> Iterator[str]:
    """Channels whose intensities are of another kind than what is done to them expects.

    A few cases are read for it.

    Args:
        value: how scans are prepared.
        cases: those that train.
    """
    try:
        scans = [_voxels(case, value) for case in cases[:_SEEN_CASES]]
    except DataError:
        return
    for number in range(len(scans[0]) if scans else 0):
        intensity = steps_of(value.intensity_of(number))[0]
        found = [_contradiction(intensity, scan[number]) for scan in scans if scan[number].size]
        if found and all(found):
            name = (value.channel_names or ())[number : number + 1]
            label = f"channel {number + 1}" + (f" ({name[0]})" if name else "")
            yield f"{label}: {found[0]}"


def sizes_text(sizes: Sequence[float] | None) -> str:
    """Numbers along (x, y, z), such as `1 x 1 x 2.5`; nothing for None."""
    return " x ".join(f"{size:.4g}" for size in sizes) if sizes else ""


# -------------------------------------------------------------------- internals
def _ratio(one: Voxels, other: Sequence[float]) -> float:
    return float(np.maximum(one / other, np.array(other) / one).max())


def _voxels(case: Case, value: Preprocessing) -> list[Voxels]:
    """Some of the intensities of each channel, where the network sees the scan."""
    volumes = [read_volume(ref) for ref in case.images]
    for other in volumes[1:]:
        check_same_grid(volumes[0], other)
    arrays = [volume.array for volume in volumes]
    box = find_box(arrays, value)
    found = []
    for array in arrays:
        voxels = (array if box is None else array[box]).reshape(-1)
        if value.fill_values == "outside":
            voxels = voxels[~fill_mask(voxels, find_fill_values(voxels))]
        found.append(voxels[:: max(voxels.size // _SAMPLED_VOX, 1)].astype(np.float64))
    return found


def _contradiction(intensity: Intensity, voxels: Voxels) -> str | None:
    """What is wrong with the intensities of a scan, with the figure; None where nothing is."""
    low, high = np.percentile(voxels, [0.5, 99.5]).tolist()
    are = f"the scans' intensities are {low:.4g} to {high:.4g}"
    if getattr(intensity, "mask", "whole") != "whole" and np.mean(voxels == 0) < _ZERO_SHARE:
        return (
            f"only voxels that are not 0 are counted, and {np.mean(voxels == 0):.1%} of them are 0: "
            "surroundings are not removed from these scans (mask: whole counts all)"
        )
    if isinstance(intensity, ZScoreIntensity) and intensity.mean is None:
        if low < _AIR_HU and high > _TISSUE_HU:
            return (
                f"{are}, as Hounsfield units, and each scan is z-scored, so that air and bones "
                "decide on the scale of tissue: see preprocessing=ct and preprocessing=nnunet"
            )
    elif isinstance(intensity, WindowIntensity | ZScoreIntensity):
        if wrong := _outside_of(intensity, voxels, (low, high)):
            return f"{wrong}; {are}: are they of another kind, such as normalised ones?"
    elif isinstance(intensity, MinMaxIntensity):
        lowest, highest = float(voxels.min()), float(voxels.max())
        share = (high - lowest) / max(highest - lowest, 1e-8)
        if share < _CROWDED_SHARE:
            return (
                f"99.5 % of the voxels lie in the lowest {share:.1%} of {lowest:.4g} to "
                f"{highest:.4g}, which become {intensity.to[0]:g} and {intensity.to[1]:g}: clip "
                "the outliers, or preprocessing.intensity={kind: percentile}"
            )
    elif isinstance(intensity, PercentileIntensity):
        ends = np.percentile(voxels, [intensity.low, intensity.high])
        if ends[0] == ends[1]:
            return (
                f"percentiles {intensity.low:g} and {intensity.high:g} of a scan are both "
                f"{ends[0]:g}: mask: nonzero counts what is not 0"
            )
    return None


def _outside_of(
    intensity: WindowIntensity | ZScoreIntensity, voxels: Voxels, ends: Ends
) -> str | None:
    """How a scan lies outside of the numbers that are the same for all."""
    if isinstance(intensity, ZScoreIntensity) and intensity.clip is None:
        if intensity.mean is None or intensity.std is None:
            return None
        distance = abs(float(voxels.mean()) - intensity.mean) / intensity.std
        return (
            f"the mean of the scans is {distance:.3g} standard deviations from {intensity.mean:g}"
            if distance > _FAR_STD
            else None
        )
    interval = intensity.clip if isinstance(intensity, ZScoreIntensity) else None
    if isinstance(intensity, WindowIntensity):
        interval = (intensity.low, intensity.high)
    assert interval is not None
    low, high = interval
    first, last = np.clip(ends, low, high)
    used, above = (last - first) / (high - low), float(np.mean(voxels > high))
    expected = f"{low:.4g} to {high:.4g}, the interval of preprocessing.intensity"
    if used < _USED_SHARE:
        return f"scans take up {used:.1%} of {expected}"
    if above > _BEYOND_SHARE:
        return f"{above:.0%} of the voxels are above {expected}"
    if low < 0 <= voxels.min():
        return f"no voxel is below 0, where Hounsfield units have air and fat; {expected}"
    return None
