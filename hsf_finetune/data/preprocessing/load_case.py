"""Reading cases as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.check_volumes import check_image, check_same_grid, to_label_rows
from hsf_finetune.data.volumes.read_volume import Volume, read_volume


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


def load_case(case: Case, target_spacing_mm: Sequence[float] | None) -> Sample:
    """Reads, checks and preprocesses a case; the voxel size is as for `prepare_channels`.

    Raises:
        DataError: a file cannot be read, or would give wrong results.
    """
    images = [read_volume(ref) for ref in case.images]
    image, grid = prepare_channels(images, target_spacing_mm)
    label = read_volume(case.label)
    check_same_grid(images[0], label)
    rows = to_label_rows(label, case.protocol)
    return Sample(image, grid.label_to_network(rows), grid.spacing_mm)


def prepare_channels(
    volumes: Sequence[Volume], target_spacing_mm: Sequence[float] | None
) -> tuple[Tensor, VoxelGrid]:
    """Checks and preprocesses the channels of an image.

    Args:
        volumes: one per channel.
        target_spacing_mm: voxel size to resample to, in RAS+ order; None keeps the file's.

    Returns:
        The image on the network's grid, (channels, x, y, z), each channel z-normalised; and
        its grid.

    Raises:
        DataError: a channel holds NaN or a single value, or their grids differ.
    """
    for volume in volumes:
        check_image(volume)
    for other in volumes[1:]:
        check_same_grid(volumes[0], other)
    grid = VoxelGrid.from_volume(volumes[0], target_spacing_mm)
    channels = [z_normalise(grid.image_to_network(volume.array)) for volume in volumes]
    return torch.stack(channels), grid


def z_normalise(image: Tensor) -> Tensor:
    """Zero mean and unit variance over the whole volume, as in HSF; any shape, float32."""
    wide = image.double()
    return ((wide - wide.mean()) / wide.std().clamp_min(1e-8)).float()
