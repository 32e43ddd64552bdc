"""Reading cases as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import (
    HSF_PREPROCESSING,
    Intensity,
    Preprocessing,
    UnchangedIntensity,
    steps_of,
)
from hsf_finetune.data.preprocessing.normalise_intensity import normalise_in_place
from hsf_finetune.data.preprocessing.visible_part import filled_nonzero, find_box
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.check_volumes import (
    check_image,
    check_same_grid,
    on_grid_of,
    to_label_rows,
)
from hsf_finetune.data.volumes.outside import (
    Array,
    fill_mask,
    fill_with_mean,
)
from hsf_finetune.data.volumes.read_volume import Volume, read_volume

if TYPE_CHECKING:
    from hsf_finetune.data.discovery.cases import Case


@dataclass(frozen=True)
class Sample:
    """A preprocessed case, on the network's grid.

    Args:
        image: float32, (channels, x, y, z), its intensities normalised.
        label: label rows (see `LabelMap`), uint8, (x, y, z).
        spacing_mm: voxel size along (x, y, z).
    """

    image: Tensor
    label: Tensor
    spacing_mm: tuple[float, float, float]


def load_case(case: Case, preprocessing: Preprocessing = HSF_PREPROCESSING) -> Sample:
    """Reads, checks and preprocesses a case.

    Raises:
        DataError: a file cannot be read, or would give wrong results.
    """
    images = [read_volume(ref) for ref in case.images]
    image, grid = prepare_channels(images, preprocessing)
    label = on_grid_of(images[0], read_volume(case.label))
    rows = to_label_rows(label, case.protocol)
    return Sample(image, grid.label_to_network(rows), grid.spacing_mm)


def prepare_channels(
    volumes: Sequence[Volume], preprocessing: Preprocessing = HSF_PREPROCESSING
) -> tuple[Tensor, VoxelGrid]:
    """Checks and preprocesses the channels of an image.

    Returns:
        The image on the network's grid, float32, (channels, x, y, z); and its grid.

    Raises:
        DataError: a channel holds NaN, infinity or a single value, or their grids differ.
    """
    for volume in volumes:
        check_image(volume)
    for other in volumes[1:]:
        check_same_grid(volumes[0], other)
    arrays = [volume.array for volume in volumes]
    masks: list[Array | None] = [None] * len(arrays)
    how = preprocessing
    box = find_box(arrays, how) if how.crop_after == "reading" else None
    if how.fill_values == "outside":
        fills = [volume.grey_in(box).fills for volume in volumes]
        masks = [fill_mask(array, f) if f else None for array, f in zip(arrays, fills, strict=True)]
        arrays = [fill_with_mean(array, mask) for array, mask in zip(arrays, masks, strict=True)]
        if box and any(fills):
            box = find_box(arrays, how)
    kinds = [how.intensity_of(number) for number in range(len(arrays))]
    channels = [
        _Channel(array, _outside(arrays, mask, kind), kind)
        for array, mask, kind in zip(arrays, masks, kinds, strict=True)
    ]
    if how.intensity_first and how.crop_after == "intensity":
        channels = [channel.changed() for channel in channels]
        box = find_box([channel.array for channel in channels], how)
    grid = VoxelGrid.from_volume(volumes[0], how, box)
    if how.crop_after == "reading" or how.crop == "none" or box:
        return _joined([_changed(*one.on(grid, how)) for one in channels]), grid
    found = [one.on(grid, how) for one in channels]
    if how.crop_after == "intensity":
        found = [(_changed(*one), None, UnchangedIntensity()) for one in found]
    grid = replace(grid, part=find_box([image.numpy() for image, _, _ in found], how))
    cut = [(grid.cut(image), grid.cut(mask), kind) for image, mask, kind in found]
    return _joined([_changed(*one) for one in cut]), grid


# -------------------------------------------------------------------- internals
_Image = tuple[Tensor, Tensor | None, Intensity]
"""A channel on the network's grid, in memory of its own, where it is outside of the scan, and what
is still to be done to its intensities."""


def _joined(channels: Sequence[Tensor]) -> Tensor:
    """Channels as one tensor; a single one, which may be large, is not copied."""
    return channels[0][None] if len(channels) == 1 else torch.stack([*channels])


def _changed(image: Tensor, outside: Tensor | None, kind: Intensity) -> Tensor:
    return normalise_in_place(image, kind, outside)


@dataclass(frozen=True)
class _Channel:
    """A channel of a file, (X, Y, Z), where it is outside of the scan, and its intensities' kind."""

    array: Array
    outside: Array | None
    kind: Intensity

    def changed(self) -> _Channel:
        """The same with its intensities changed."""
        image = torch.from_numpy(np.array(self.array, dtype=np.float32, order="C"))
        outside = torch.from_numpy(self.outside) if self.outside is not None else None
        array = normalise_in_place(image, self.kind, outside).numpy()
        return replace(self, array=array, outside=None, kind=UnchangedIntensity())

    def on(self, grid: VoxelGrid, how: Preprocessing) -> _Image:
        """The channel on the network's grid."""
        image = grid.turned(self.array, np.float32)
        outside = grid.turned(self.outside, np.float32) if self.outside is not None else None
        resampler = grid.resampler
        if how.intensity_first:
            inside = outside > 0 if outside is not None else None
            image = normalise_in_place(image, self.kind, inside)
            return resampler.image(image), None, UnchangedIntensity()
        inside = resampler.mask(outside) if outside is not None else None
        return resampler.image(image), inside, self.kind


def _outside(arrays: Sequence[Array], mask: Array | None, kind: Intensity) -> Array | None:
    """The voxels of a channel that are not counted, beside those that are 0."""
    if all(getattr(one, "mask", "whole") != "nonzero_filled" for one in steps_of(kind)):
        return mask
    empty = ~filled_nonzero(arrays)
    return empty if mask is None else mask | empty
