"""Reading cases as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import (
    HSF_PREPROCESSING,
    Intensity,
    Preprocessing,
)
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.normalise_intensity import normalise_intensity
from hsf_finetune.data.preprocessing.visible_part import filled_nonzero, find_box
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.check_volumes import check_image, check_same_grid, to_label_rows
from hsf_finetune.data.volumes.outside import (
    Array,
    fill_mask,
    fill_with_mean,
    find_fill_values,
)
from hsf_finetune.data.volumes.read_volume import Volume, read_volume


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
    label = read_volume(case.label)
    check_same_grid(images[0], label)
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
    box = find_box(arrays, preprocessing)
    masks: list[Array | None] = [None] * len(arrays)
    if preprocessing.fill_values == "outside":
        fills = [find_fill_values(array[box] if box else array) for array in arrays]
        masks = [fill_mask(array, f) if f else None for array, f in zip(arrays, fills, strict=True)]
        arrays = [fill_with_mean(array, mask) for array, mask in zip(arrays, masks, strict=True)]
        if box and any(fills):
            box = find_box(arrays, preprocessing)
    grid = VoxelGrid.from_volume(volumes[0], preprocessing, box)
    channels = []
    for number, (array, mask) in enumerate(zip(arrays, masks, strict=True)):
        intensity = preprocessing.intensity_of(number)
        if getattr(intensity, "mask", "whole") == "nonzero_filled":
            empty = ~filled_nonzero(arrays)
            mask = empty if mask is None else mask | empty
        channels.append(_prepare_channel(array, mask, grid, intensity, preprocessing))
    return torch.stack(channels), grid


def _prepare_channel(
    array: Array, mask: Array | None, grid: VoxelGrid, intensity: Intensity, how: Preprocessing
) -> Tensor:
    """A channel on the network's grid; the voxels of the mask are outside of the scan."""
    image = grid.turned(array, np.float32)
    outside = grid.turned(mask, np.float32) if mask is not None else None
    resampler = grid.resampler
    if how.intensity_first:
        inside = outside > 0 if outside is not None else None
        return resampler.image(normalise_intensity(image, intensity, inside))
    inside = resampler.mask(outside) if outside is not None else None
    return normalise_intensity(resampler.image(image), intensity, inside)
