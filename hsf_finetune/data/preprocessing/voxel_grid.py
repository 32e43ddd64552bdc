"""From the voxel grid of a file to the network's grid, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from torch import Tensor
from torch.nn.functional import interpolate

from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.system.errors import DataError

Triple = tuple[int, int, int]

_RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class VoxelGrid:
    """A file's voxel grid and the network's grid for it.

    The network's grid runs along the axes nearest to right, anterior and superior, at
    the target voxel size if there is one.

    Args:
        file_shape: (X, Y, Z) of the file.
        affine: 4x4 of the file, from voxel to RAS+ millimetres.
        orientation: nibabel orientation array from the file's axes to RAS+.
        canonical_shape: (x, y, z) after reorientation, before resampling.
        shape: (x, y, z) that the network sees, before padding.
        spacing_mm: voxel size that the network sees, along (x, y, z).
    """

    file_shape: Triple
    affine: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    canonical_shape: Triple
    shape: Triple
    spacing_mm: tuple[float, float, float]

    @classmethod
    def from_volume(cls, volume: Volume, target_spacing_mm: Sequence[float] | None) -> VoxelGrid:
        """The grid of a volume, and its resampling to a voxel size in RAS+ order, if any.

        Raises:
            DataError: the affine maps an axis to nothing.
        """
        orientation = io_orientation(volume.affine)
        if np.isnan(orientation).any():
            raise DataError("the affine has an empty axis", file=volume.ref)
        order = np.argsort(orientation[:, 0])  # the file's axis along each RAS+ axis
        file_shape = volume.array.shape
        shape = canonical = [file_shape[axis] for axis in order]
        spacing = [volume.spacing_mm[axis] for axis in order]
        if target_spacing_mm is not None:
            sizes = zip(canonical, spacing, target_spacing_mm, strict=True)
            shape = [max(round(n * s / t), 1) for n, s, t in sizes]
            spacing = [n * s / m for n, s, m in zip(canonical, spacing, shape, strict=True)]
        shapes = (_triple(canonical), _triple(shape))
        x_mm, y_mm, z_mm = spacing
        return cls(_triple(file_shape), volume.affine, orientation, *shapes, (x_mm, y_mm, z_mm))

    def image_to_network(self, array: npt.NDArray[Any]) -> Tensor:
        """An image on the file's grid, (X, Y, Z) -> float32 on the network's grid, (x, y, z)."""
        image = self._reorient(array, np.float32)
        if self.shape == self.canonical_shape:
            return image
        return interpolate(image[None, None], size=self.shape, mode="trilinear")[0, 0]

    def label_to_network(self, rows: npt.NDArray[np.uint8]) -> Tensor:
        """Labels on the file's grid, (X, Y, Z) -> uint8 on the network's grid, (x, y, z).

        Each voxel gets the label of the nearest one.
        """
        label = self._reorient(rows, np.uint8)
        if self.shape == self.canonical_shape:
            return label
        nearest = interpolate(label[None, None].float(), size=self.shape, mode="nearest-exact")
        return nearest[0, 0].to(torch.uint8)

    def classes_to_file(self, scores: Tensor) -> npt.NDArray[np.uint8]:
        """Class scores on the network's grid, (C, x, y, z) -> class indices, (X, Y, Z).

        The highest score decides. Scores, not labels, are resampled, so that borders stay smooth.
        """
        classes = self._resample_scores(scores).argmax(dim=0).to(torch.uint8).cpu().numpy()
        return self._restore_orientation(classes)

    def scores_to_file(self, scores: Tensor) -> Tensor:
        """Class scores on the network's grid, (C, x, y, z) -> on the file's grid, (C, X, Y, Z)."""
        channels = self._resample_scores(scores).cpu().numpy()
        return torch.from_numpy(np.stack([self._restore_orientation(one) for one in channels]))

    def _reorient(self, array: npt.NDArray[Any], dtype: Any) -> Tensor:
        """A volume of the file, (X, Y, Z), along RAS+ axes."""
        # A copy, since a reversed axis of length 1 counts as contiguous, but not for torch.
        oriented = apply_orientation(array, self.orientation)
        return torch.from_numpy(np.array(oriented, dtype=dtype, order="C"))

    def _resample_scores(self, scores: Tensor) -> Tensor:
        """Scores (C, x, y, z) at the file's voxel size, still along RAS+ axes."""
        if self.shape == self.canonical_shape:
            return scores
        return interpolate(scores[None].float(), size=self.canonical_shape, mode="trilinear")[0]

    def _restore_orientation(self, canonical: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A volume along RAS+ axes, along the file's axes, (X, Y, Z)."""
        back = ornt_transform(_RAS, self.orientation)
        return np.ascontiguousarray(apply_orientation(canonical, back))


def _triple(values: Sequence[int]) -> Triple:
    return (int(values[0]), int(values[1]), int(values[2]))
