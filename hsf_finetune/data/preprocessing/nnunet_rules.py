"""nnU-Net's rules of preprocessing, from the fingerprint of the data (Isensee et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    Preprocessing,
    UnchangedIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.orientation import axes_to, file_axes
from hsf_finetune.data.preprocessing.resampling import Resampler, Triple
from hsf_finetune.data.preprocessing.visible_part import find_box
from hsf_finetune.data.volumes.check_volumes import check_same_grid, on_grid_of, to_label_rows
from hsf_finetune.data.volumes.read_volume import read_volume
from hsf_finetune.system.console import progress

_ANISOTROPIC = 3.0
"""Ratio of voxel sizes, and of numbers of voxels, of data with thick slices."""
_THICK_PERCENT = 10
"""Percentile of the thickness of slices that such data are resampled to."""
_CROPPED_SHARE = 0.75
"""Where cropping leaves less than this share of a scan, statistics leave out what is 0."""
_SAMPLED = 10_000_000
"""Foreground voxels whose intensities are kept, of all cases together."""
_CT = "ct"
_BY_NAME: Mapping[str, Intensity] = {
    "nonorm": UnchangedIntensity(),
    "rescale_to_0_1": MinMaxIntensity(),
    "rgb_to_0_1": WindowIntensity(low=0, high=255, clip=False),
}
"""Names of channels, beside CT, that nnU-Net does not z-score."""
_EDGE_VOX = 256
"""Edge of the cube that has as many voxels as the largest patch that is thought of."""
_PATCH_VOX = 128**3
"""Voxels of a patch that nnU-Net trains in 8 GB, about."""
_FEW_VOX = 64
"""Axes of a patch that have no more lose 4 at a time, others 8."""
_BASE = Preprocessing(
    resampling="nnunet",
    intensity_first=True,
    fill_values="kept",
    crop="nonzero",
    padding="symmetric",
    padded_size="window",
)


@dataclass(frozen=True)
class _Measured:
    """One case: voxel size and size along RAS+ axes, the share left by cropping, intensities."""

    spacing_mm: npt.NDArray[np.float64]
    size_vox: npt.NDArray[np.float64]
    share: float
    foreground: npt.NDArray[np.float32]

    def resampled(self, spacing_mm: Sequence[float]) -> Triple:
        """Its size at another voxel size."""
        x, y, z = self.size_vox.astype(int).tolist()
        made = Resampler.to_spacing("nnunet", (x, y, z), self.spacing_mm.tolist(), spacing_mm)
        return made.shapes[1]


def preprocessing_by_nnunet(
    cases: Sequence[Case], channel_names: Sequence[str] | None
) -> Preprocessing:
    """How nnU-Net would prepare these scans; it reads all of them.

    Args:
        cases: those that train.
        channel_names: of the channels; one called CT gets the statistics of its foreground, and
            noNorm, rescale_to_0_1 and rgb_to_0_1 are what they say.

    Raises:
        DataError: a case cannot be read.
    """
    channels = range(len(cases[0].images))
    names = [name.lower() for name in channel_names or ["" for _ in channels]]
    ct = [number for number in channels if names[number] == _CT]
    measured = []
    with progress("measuring scans") as tick:
        for done, case in enumerate(cases, start=1):
            measured.append(_measure(case, ct, _SAMPLED // len(cases)))
            tick(done, len(cases))
    spacing = median_spacing(
        np.array([one.spacing_mm for one in measured]), np.array([one.size_vox for one in measured])
    )
    is_cropped = float(np.median([one.share for one in measured])) < _CROPPED_SHARE
    z_score = ZScoreIntensity(mask="nonzero_filled" if is_cropped else "whole")
    intensities: list[Intensity] = [_BY_NAME.get(name, z_score) for name in names]
    for row, number in enumerate(ct):
        voxels = [one.foreground[row] for one in measured if one.foreground.size]
        intensities[number] = ct_intensity(voxels) if voxels else z_score
    one_for_all = len(set(intensities)) == 1
    patch = patch_of_scans(spacing, [one.resampled(spacing) for one in measured])
    return _BASE.model_copy(
        update={
            "spacing_mm": spacing,
            "intensity": tuple(intensities[:1] if one_for_all else intensities),
            "patch_vox": patch,
            "window_vox": patch,
        }
    )


def median_spacing(
    spacings_mm: npt.NDArray[np.float64], sizes_vox: npt.NDArray[np.float64]
) -> tuple[float, float, float]:
    """The voxel size that nnU-Net resamples to, (x, y, z) in mm.

    It is the median of each axis. Where slices are thick, and few, in most scans, it is the
    10th percentile of their thickness, since resampling thinner ones would lose most; but no
    less than the voxels' size within slices.

    Args:
        spacings_mm: of the cases, (cases, 3).
        sizes_vox: of the cases, cropped, (cases, 3).
    """
    spacing = np.median(spacings_mm, axis=0)
    size = np.median(sizes_vox, axis=0)
    thick = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != thick]
    in_plane = max(spacing[others])
    is_thick = spacing[thick] > _ANISOTROPIC * in_plane
    if is_thick and size[thick] * _ANISOTROPIC < min(size[others]):
        thinner = float(np.percentile(spacings_mm[:, thick], _THICK_PERCENT))
        spacing[thick] = thinner if thinner >= in_plane else in_plane + 1e-5
    x, y, z = spacing.tolist()
    return (x, y, z)


def patch_of_scans(spacing_mm: Sequence[float], sizes_vox: Sequence[Triple]) -> Triple:
    """The patch that nnU-Net trains on, before it is rounded to what a network can halve.

    It is as long along all axes in mm, and no larger than the median scan; as long as it has too
    many voxels, it loses some where it covers the largest share of that scan.

    Args:
        spacing_mm: voxel size of the network.
        sizes_vox: of the cases at that voxel size.
    """
    median = np.median(np.array(sizes_vox, dtype=float), axis=0)
    cube = _EDGE_VOX * np.prod(spacing_mm) ** (1 / 3) / np.array(spacing_mm)
    patch = np.ceil(np.minimum(np.round(cube), median))
    while np.prod(patch) > _PATCH_VOX:
        axis = np.argmax(patch / median)
        patch[axis] -= 8 if patch[axis] > _FEW_VOX else 4
    x, y, z = patch.astype(int).tolist()
    return (x, y, z)


def ct_intensity(foreground: Sequence[npt.NDArray[np.float32]]) -> ZScoreIntensity:
    """Clipping and scaling by the statistics of labelled voxels, as nnU-Net's CTNormalization.

    Args:
        foreground: of each case; all of them count equally, however large they are.
    """
    most = max(len(voxels) for voxels in foreground)
    places = (np.arange(most) + 0.5) / most
    voxels = np.concatenate(
        [np.sort(own)[(places * len(own)).astype(int)] for own in foreground], dtype=np.float64
    )
    low, high = (float(end) for end in np.percentile(voxels, [0.5, 99.5]))
    std = max(float(voxels.std()), 1e-8)
    return ZScoreIntensity(clip=(low, max(high, low + 1e-8)), mean=float(voxels.mean()), std=std)


def _measure(case: Case, ct: Sequence[int], most: int) -> _Measured:
    volumes = [read_volume(ref) for ref in case.images]
    first = volumes[0]
    for other in volumes[1:]:
        check_same_grid(first, other)
    box = find_box([volume.array for volume in volumes], _BASE)
    assert box is not None
    order = file_axes(axes_to(first.affine))
    foreground = np.zeros((len(ct), 0), np.float32)
    if ct:
        label = to_label_rows(on_grid_of(first, read_volume(case.label)), case.protocol)
        inside = case.protocol.foreground_rows[label[box]]
        channels = [volumes[number].array[box] for number in ct]
        voxels = np.stack([array[inside].astype(np.float32) for array in channels])
        step = max(-(-voxels.shape[1] // most), 1)
        foreground = voxels[:, ::step]
    size = [box[axis].stop - box[axis].start for axis in order]
    return _Measured(
        np.array([first.spacing_mm[axis] for axis in order]),
        np.array(size, dtype=np.float64),
        float(np.prod(size) / first.array.size),
        foreground,
    )
