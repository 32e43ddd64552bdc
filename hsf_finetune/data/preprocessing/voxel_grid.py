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

from hsf_finetune.data.volumes.outside import Box
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.system.errors import DataError

Triple = tuple[int, int, int]

_RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class VoxelGrid:
    """A file's voxel grid and the network's grid for it.

    The network's grid runs along the axes nearest to right, anterior and superior, at
    the target voxel size if there is one. It covers a box of the file's grid.

    Args:
        file_shape: (X, Y, Z) of the file.
        box: the part of the file's grid that the network sees.
        affine: 4x4 of the file, from voxel to RAS+ millimetres.
        orientation: nibabel orientation array from the file's axes to RAS+.
        canonical_shape: (x, y, z) of the box after reorientation, before resampling.
        shape: (x, y, z) that the network sees, before padding.
        spacing_mm: voxel size that the network sees, along (x, y, z).
    """

    file_shape: Triple
    box: Box
    affine: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    canonical_shape: Triple
    shape: Triple
    spacing_mm: tuple[float, float, float]

    @classmethod
    def from_volume(
        cls, volume: Volume, target_spacing_mm: Sequence[float] | None, box: Box | None = None
    ) -> VoxelGrid:
        """The grid of a volume, and its resampling to a voxel size in RAS+ order, if any.

        Args:
            volume: on the file's grid.
            target_spacing_mm: voxel size in RAS+ order; None keeps the file's.
            box: the part that the network sees; None is all of it.

        Raises:
            DataError: the affine maps an axis to nothing.
        """
        orientation = io_orientation(volume.affine)
        if np.isnan(orientation).any():
            raise DataError("the affine has an empty axis", file=volume.ref)
        order = np.argsort(orientation[:, 0])  # the file's axis along each RAS+ axis
        box = box or _box_of(volume.array.shape)
        shape = canonical = [box[axis].stop - box[axis].start for axis in order]
        spacing = [volume.spacing_mm[axis] for axis in order]
        if target_spacing_mm is not None:
            sizes = zip(canonical, spacing, target_spacing_mm, strict=True)
            shape = [max(round(n * s / t), 1) for n, s, t in sizes]
            spacing = [n * s / m for n, s, m in zip(canonical, spacing, shape, strict=True)]
        shapes = (_triple(canonical), _triple(shape))
        x_mm, y_mm, z_mm = spacing
        file_shape = _triple(volume.array.shape)
        return cls(file_shape, box, volume.affine, orientation, *shapes, (x_mm, y_mm, z_mm))

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
        What lies outside of the box is background.
        """
        classes = self._resample_scores(scores).argmax(dim=0).to(torch.uint8).cpu().numpy()
        return self._to_file(classes, outside=0)

    def probabilities_to_file(self, probabilities: Tensor) -> Tensor:
        """Probabilities on the network's grid, (C, x, y, z) -> on the file's grid, (C, X, Y, Z).

        What lies outside of the box is background.
        """
        channels = enumerate(self._resample_scores(probabilities).cpu().numpy())
        parts = [self._to_file(one, outside=float(number == 0)) for number, one in channels]
        return torch.from_numpy(np.stack(parts))

    def _reorient(self, array: npt.NDArray[Any], dtype: Any) -> Tensor:
        """The box of a volume of the file, (X, Y, Z), along RAS+ axes."""
        # A copy, since a reversed axis of length 1 counts as contiguous, but not for torch.
        oriented = apply_orientation(array[self.box], self.orientation)
        return torch.from_numpy(np.array(oriented, dtype=dtype, order="C"))

    def _resample_scores(self, scores: Tensor) -> Tensor:
        """Scores (C, x, y, z) at the file's voxel size, still along RAS+ axes."""
        if self.shape == self.canonical_shape:
            return scores
        return interpolate(scores[None].float(), size=self.canonical_shape, mode="trilinear")[0]

    def _to_file(self, canonical: npt.NDArray[Any], outside: float) -> npt.NDArray[Any]:
        """A volume of the box along RAS+ axes, on the file's grid, (X, Y, Z)."""
        back = apply_orientation(canonical, ornt_transform(_RAS, self.orientation))
        if self.box == _box_of(self.file_shape):
            return np.ascontiguousarray(back)
        whole = np.full(self.file_shape, outside, back.dtype)
        whole[self.box] = back
        return whole


def _box_of(shape: Sequence[int]) -> Box:
    x, y, z = (slice(0, size) for size in shape)
    return (x, y, z)


def _triple(values: Sequence[int]) -> Triple:
    return (int(values[0]), int(values[1]), int(values[2]))
