"""Reading cases as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.check_volumes import check_image, check_same_grid, to_label_rows
from hsf_finetune.data.volumes.outside import (
    fill_mask,
    fill_with_mean,
    find_content_box,
    find_fill_values,
)
from hsf_finetune.data.volumes.read_volume import Volume, read_volume
from hsf_finetune.networks.padding import Padding


@dataclass(frozen=True)
class Sample:
    """A preprocessed case, on the network's grid.

    Args:
        image: z-normalised float32, (channels, x, y, z).
        label: label rows (see `LabelMap`), uint8, (x, y, z).
        spacing_mm: voxel size along (x, y, z).
    """

    image: Tensor
    label: Tensor
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a network's inputs are prepared: the same in training, validation and prediction.

    Args:
        target_spacing_mm: voxel size to resample to, in RAS+ order; None keeps the file's.
        padding: where volumes are padded to a size that the network can halve.
        crop_margins: leave out empty margins, so that they change nothing.
    """

    target_spacing_mm: tuple[float, ...] | None = None
    padding: Padding = "both"
    crop_margins: bool = True


def load_case(case: Case, preprocessing: Preprocessing = Preprocessing()) -> Sample:
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
    volumes: Sequence[Volume], preprocessing: Preprocessing = Preprocessing()
) -> tuple[Tensor, VoxelGrid]:
    """Checks and preprocesses the channels of an image; voxels of fill values become 0.

    Returns:
        The image on the network's grid, (channels, x, y, z), each channel z-normalised; and
        its grid.

    Raises:
        DataError: a channel holds NaN, infinity or a single value, or their grids differ.
    """
    for volume in volumes:
        check_image(volume)
    for other in volumes[1:]:
        check_same_grid(volumes[0], other)
    arrays, box = [volume.array for volume in volumes], None
    if preprocessing.crop_margins:
        box = find_content_box(arrays)
    fills = [find_fill_values(array[box] if box else array) for array in arrays]
    masks = [fill_mask(array, f) if f else None for array, f in zip(arrays, fills, strict=True)]
    arrays = [fill_with_mean(array, mask) for array, mask in zip(arrays, masks, strict=True)]
    if box and any(fills):
        box = find_content_box(arrays)
    grid = VoxelGrid.from_volume(volumes[0], preprocessing.target_spacing_mm, box)
    channels = [
        z_normalise(
            grid.image_to_network(array),
            grid.image_to_network(mask) > 0 if mask is not None else None,
        )
        for array, mask in zip(arrays, masks, strict=True)
    ]
    return torch.stack(channels), grid


def z_normalise(image: Tensor, outside: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance over the whole volume, as in HSF.

    Args:
        image: any shape.
        outside: voxels, of the same shape, that are not counted and become 0.

    Returns:
        float32, of the same shape.
    """
    wide = image.double()
    counted = wide if outside is None else wide[~outside]
    normal = ((wide - counted.mean()) / counted.std().clamp_min(1e-8)).float()
    return normal if outside is None else normal.masked_fill(outside, 0.0)
