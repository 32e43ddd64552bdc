"""From the voxel grid of a file to the network's grid, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import HSF_PREPROCESSING, Preprocessing
from hsf_finetune.data.preprocessing.orientation import (
    Axes,
    axes_to,
    file_axes,
    turn,
    turn_back,
    turned_affine,
)
from hsf_finetune.data.preprocessing.resampling import Resampler, Triple
from hsf_finetune.data.volumes.affines import Affine, voxel_size_mm
from hsf_finetune.data.volumes.outside import Box
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_shape
from hsf_finetune.system.errors import DataError


@dataclass(frozen=True)
class VoxelGrid:
    """A file's voxel grid and the network's grid for it.

    The network's grid runs along the axes nearest to those of an orientation, such as right,
    anterior and superior, at the target voxel size if there is one. It covers a box of the
    file's grid.

    Args:
        file_shape: (X, Y, Z) of the file.
        box: the part of the file's grid that the network sees.
        affine: 4x4 of the file, from voxel to RAS+ millimetres.
        axes: how the file's axes become the network's.
        resampler: from the box along the network's axes to the network's grid.
        part: of that grid, all that the network sees; None is all of it.
    """

    file_shape: Triple
    box: Box
    affine: Affine
    axes: Axes
    resampler: Resampler
    part: Box | None = None

    @classmethod
    def from_volume(
        cls,
        volume: Volume,
        preprocessing: Preprocessing = HSF_PREPROCESSING,
        box: Box | None = None,
    ) -> VoxelGrid:
        """The grid of a volume.

        Args:
            volume: on the file's grid.
            preprocessing: the network's orientation, voxel size and way of resampling.
            box: the part that the network sees; None is all of it.

        Raises:
            DataError: the affine maps an axis to nothing.
        """
        return cls._make(volume.ref, volume.array.shape, volume.affine, preprocessing, box)

    @classmethod
    def from_header(cls, ref: VolumeRef, preprocessing: Preprocessing) -> VoxelGrid:
        """The grid of a file as its header alone gives it, with margins and empty parts.

        Raises:
            DataError: the header cannot be read, or its affine maps an axis to nothing.
        """
        shape, affine = read_shape(ref)
        return cls._make(ref, shape[:3], affine, preprocessing, None)

    @classmethod
    def _make(
        cls,
        ref: VolumeRef,
        shape: Sequence[int],
        affine: Affine,
        preprocessing: Preprocessing,
        box: Box | None,
    ) -> VoxelGrid:
        axes = axes_to(affine, preprocessing.orientation)
        if np.isnan(axes).any():
            raise DataError("the affine has an empty axis", file=ref)
        order, sizes = file_axes(axes), voxel_size_mm(affine)
        box = box or _box_of(shape)
        old = _triple([box[axis].stop - box[axis].start for axis in order])
        spacing = [sizes[axis] for axis in order]
        kind, wanted = preprocessing.resampling, preprocessing.spacing_mm
        turned = turned_affine(affine, axes, tuple(shape))
        resampler = Resampler.to_spacing(kind, old, spacing, wanted, turned)
        return cls(_triple(shape), box, affine, axes, resampler)

    @property
    def shape(self) -> Triple:
        """(x, y, z) that the network sees, before padding."""
        if self.part is None:
            return self.resampler.shapes[1]
        return _triple([one.stop - one.start for one in self.part])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size that the network sees, along (x, y, z)."""
        x, y, z = self.resampler.spacings_mm[1]
        return (x, y, z)

    def label_to_network(self, rows: npt.NDArray[np.uint8]) -> Tensor:
        """Labels on the file's grid, (X, Y, Z) -> uint8 on the network's grid, (x, y, z)."""
        return self.cut(self.resampler.labels(self.turned(rows, np.uint8)))

    def classes_to_file(
        self, scores: Tensor, decide: Callable[[Iterable[Tensor]], Tensor] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Class scores on the network's grid, (C, x, y, z) -> class indices, (X, Y, Z).

        Scores are probabilities, or logits where the resampler takes those. The highest decides,
        or another rule. Scores, not labels, are resampled, so that borders stay smooth.
        What lies outside of the box is background.
        """
        # One class after the other: of many, all scores on the file's grid would be large.
        back = (self.resampler.scores_back(self._uncut(one[None]))[0] for one in scores)
        classes = (decide or highest_class)(back)
        return self._to_file(classes.cpu().numpy(), outside=0)

    def found_to_file(self, classes: Tensor) -> npt.NDArray[np.uint8]:
        """Class indices on the network's grid, uint8, (x, y, z) -> (X, Y, Z), not resampled."""
        return self._to_file(self._uncut(classes[None])[0].numpy(), outside=0)

    def probabilities_to_file(self, scores: Tensor) -> Tensor:
        """Scores on the network's grid, (C, x, y, z) -> probabilities, (C, X, Y, Z).

        What lies outside of the box is background.
        """
        back = self.resampler.scores_back(self._uncut(scores))
        if self.resampler.takes_logits:
            back = back.softmax(dim=0)
        elif self.part is not None:
            back[0] += 1 - back.sum(dim=0)
        channels = enumerate(back.cpu().numpy())
        parts = [self._to_file(one, outside=float(number == 0)) for number, one in channels]
        return torch.from_numpy(np.stack(parts))

    @overload
    def cut(self, volume: Tensor) -> Tensor: ...
    @overload
    def cut(self, volume: None) -> None: ...
    def cut(self, volume: Tensor | None) -> Tensor | None:
        """The part of a resampled volume, (x, y, z), that the network sees."""
        return volume if volume is None or self.part is None else volume[self.part]

    def _uncut(self, scores: Tensor) -> Tensor:
        """Scores of that part, (C, x, y, z), with 0 for all classes around it, as MONAI has it."""
        if self.part is None:
            return scores
        whole = scores.new_zeros((len(scores), *self.resampler.shapes[1]))
        whole[(slice(None), *self.part)] = scores
        return whole

    def turned(self, array: npt.NDArray[Any], dtype: Any) -> Tensor:
        """The box of a volume of the file, (X, Y, Z), along the network's axes."""
        # A copy, since a reversed axis of length 1 counts as contiguous, but not for torch.
        return torch.from_numpy(np.array(turn(array[self.box], self.axes), dtype=dtype, order="C"))

    def _to_file(self, part: npt.NDArray[Any], outside: float) -> npt.NDArray[Any]:
        """A volume of the box along the network's axes, on the file's grid, (X, Y, Z)."""
        back = turn_back(part, self.axes)
        if self.box == _box_of(self.file_shape):
            return np.ascontiguousarray(back)
        whole = np.full(self.file_shape, outside, back.dtype)
        whole[self.box] = back
        return whole


def highest_class(scores: Iterable[Tensor]) -> Tensor:
    """The first class with the highest score, (C, x, y, z) -> uint8, (x, y, z).

    As `argmax`, which is slower and whose indices have 8 bytes each.
    """
    rest = iter(scores)
    best = next(rest).clone()
    classes = torch.zeros_like(best, dtype=torch.uint8)
    for number, one in enumerate(rest, start=1):
        classes.masked_fill_(one > best, number)
        torch.maximum(best, one, out=best)
    return classes


def last_region(scores: Iterable[Tensor]) -> Tensor:
    """The last class with a higher score than the first one, (C, x, y, z) -> uint8, (x, y, z)."""
    rest = iter(scores)
    background = next(rest).clone()
    classes = torch.zeros_like(background, dtype=torch.uint8)
    for number, one in enumerate(rest, start=1):
        classes.masked_fill_(one > background, number)
    return classes


def _box_of(shape: Sequence[int]) -> Box:
    x, y, z = (slice(0, int(size)) for size in shape)
    return (x, y, z)


def _triple(values: Sequence[int]) -> Triple:
    return (int(values[0]), int(values[1]), int(values[2]))
