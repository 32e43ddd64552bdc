"""From a volume in its file to what the network sees, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import (
    apply_orientation,
    io_orientation,
    ornt_transform,
)
from torch import Tensor
from torch.nn import functional

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.checks import check_image, check_same_grid, label_rows
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.system.errors import DataError

_RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class Grid:
    """The way between a file's voxel grid and the network's.

    The network's grid runs along the axes nearest to right, anterior and
    superior, at the target voxel size if there is one.

    Args:
        file_shape: (X, Y, Z) of the file.
        affine: 4x4 of the file.
        orientation: nibabel orientation array from the file's axes to RAS+.
        canonical_shape: shape after reorientation, before resampling.
        shape: shape the network sees, before padding.
        spacing_mm: voxel size the network sees.
    """

    file_shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    canonical_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def from_volume(cls, volume: Volume, target_spacing_mm: Sequence[float] | None) -> Grid:
        """The grid of a volume, for an optional target voxel size (RAS+ order, mm)."""
        orientation = io_orientation(volume.affine)
        if np.isnan(orientation).any():
            raise DataError("the affine has an empty axis", file=volume.ref)
        axes = orientation[:, 0].astype(int)
        canonical = [0, 0, 0]
        spacing = [0.0, 0.0, 0.0]
        for file_axis, axis in enumerate(axes):
            canonical[axis] = volume.array.shape[file_axis]
            spacing[axis] = volume.spacing_mm[file_axis]
        shape = list(canonical)
        if target_spacing_mm is not None:
            shape = [
                max(round(n * s / t), 1)
                for n, s, t in zip(canonical, spacing, target_spacing_mm, strict=True)
            ]
            spacing = [n * s / m for n, s, m in zip(canonical, spacing, shape, strict=True)]
        return cls(
            _triple(volume.array.shape),
            volume.affine,
            orientation,
            _triple(canonical),
            _triple(shape),
            (spacing[0], spacing[1], spacing[2]),
        )

    def image_in(self, array: npt.NDArray[Any]) -> Tensor:
        """An image of the file's grid, (X, Y, Z) -> float32 on the network's grid."""
        canonical = torch.from_numpy(_contiguous(self._oriented(array), np.float32))
        return self._resampled(canonical, self.shape)

    def label_in(self, rows: npt.NDArray[np.uint8]) -> Tensor:
        """A label of the file's grid, (X, Y, Z) -> uint8 on the network's grid (nearest)."""
        canonical = torch.from_numpy(_contiguous(self._oriented(rows), np.uint8))
        if self.shape == self.canonical_shape:
            return canonical
        resampled = functional.interpolate(
            canonical[None, None].float(), size=self.shape, mode="nearest-exact"
        )
        return resampled[0, 0].to(torch.uint8)

    def classes_out(self, scores: Tensor) -> npt.NDArray[np.uint8]:
        """Class scores (C, x, y, z) on the network's grid -> class index on the file's grid.

        Scores, not labels, are resampled, so borders stay smooth.
        """
        canonical = self._canonical(scores).argmax(dim=0).to(torch.uint8).cpu().numpy()
        return self._of_file(canonical)

    def scores_out(self, scores: Tensor) -> Tensor:
        """Class scores (C, x, y, z) on the network's grid -> (C, X, Y, Z) on the file's grid."""
        canonical = self._canonical(scores).cpu().numpy()
        return torch.from_numpy(np.stack([self._of_file(channel) for channel in canonical]))

    def _canonical(self, scores: Tensor) -> Tensor:
        """Scores (C, x, y, z) on the grid that only the orientation tells from the file's."""
        if self.shape == self.canonical_shape:
            return scores
        return functional.interpolate(
            scores[None].float(), size=self.canonical_shape, mode="trilinear"
        )[0]

    def _of_file(self, canonical: npt.NDArray[Any]) -> npt.NDArray[Any]:
        back = ornt_transform(_RAS, self.orientation)
        return np.ascontiguousarray(apply_orientation(canonical, back))

    def _oriented(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(apply_orientation(array, self.orientation))

    def _resampled(self, canonical: Tensor, shape: tuple[int, int, int]) -> Tensor:
        if tuple(canonical.shape) == shape:
            return canonical
        resampled = functional.interpolate(canonical[None, None], size=shape, mode="trilinear")
        return resampled[0, 0]


@dataclass(frozen=True)
class Sample:
    """A preprocessed case.

    Args:
        image: z-normalised float32, (C, X, Y, Z).
        label: label rows (see `LabelMap`), uint8, (X, Y, Z).
        spacing_mm: voxel size.
    """

    image: Tensor
    label: Tensor
    spacing_mm: tuple[float, float, float]


def load_case(case: Case, target_spacing_mm: Sequence[float] | None) -> Sample:
    """Reads, checks and preprocesses a case.

    Raises:
        DataError: anything about the files that would make the result wrong.
    """
    image, grid, first = load_image(case.images, target_spacing_mm)
    label = read_volume(case.label)
    check_same_grid(first, label)
    rows = label_rows(label, case.protocol)
    return Sample(image, grid.label_in(rows), grid.spacing_mm)


def load_image(
    refs: Sequence[VolumeRef], target_spacing_mm: Sequence[float] | None
) -> tuple[Tensor, Grid, Volume]:
    """The channels of a case on the network's grid, (C, X, Y, Z), z-normalised each.

    Returns:
        The image, its grid, and the first channel as it lies in its file.
    """
    volumes = [read_volume(ref) for ref in refs]
    for volume in volumes:
        check_image(volume)
    for other in volumes[1:]:
        check_same_grid(volumes[0], other)
    grid = Grid.from_volume(volumes[0], target_spacing_mm)
    channels = [z_normalise(grid.image_in(volume.array)) for volume in volumes]
    return torch.stack(channels), grid, volumes[0]


def z_normalise(image: Tensor) -> Tensor:
    """Zero mean and unit variance over the whole crop, as HSF does it."""
    wide = image.double()
    return ((wide - wide.mean()) / wide.std().clamp_min(1e-8)).float()


def _contiguous(array: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    # A copy, since a reversed axis of length 1 counts as contiguous, but not for torch.
    return np.array(array, dtype=dtype, order="C")


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    return (int(values[0]), int(values[1]), int(values[2]))
