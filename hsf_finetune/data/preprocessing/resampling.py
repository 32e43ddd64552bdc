"""Volumes at another voxel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate

from hsf_finetune.config.settings.preprocessing_settings import Resampling

Triple = tuple[int, int, int]
Array = npt.NDArray[np.float32]

_ANISOTROPIC = 3.0
"""Ratio of voxel sizes beyond which nnU-Net resamples slices."""

_TIE = 1e-5
"""Where labels have equal shares of a voxel, the nearest one gets this much more."""


@dataclass(frozen=True)
class Resampler:
    """Resampling between a grid and another one.

    Args:
        kind: how, see `Resampling`.
        shapes: (x, y, z) of the one grid and of the other.
        spacings_mm: their voxel sizes.

    Both cover the same box, but for the kind `monai`, whose first voxels have one centre.
    """

    kind: Resampling
    shapes: tuple[Triple, Triple]
    spacings_mm: tuple[Sequence[float], Sequence[float]]

    @classmethod
    def to_spacing(
        cls,
        kind: Resampling,
        shape: Triple,
        spacing_mm: Sequence[float],
        wanted_mm: Sequence[float] | None,
    ) -> Resampler:
        """From a grid to one of another voxel size, as near to it as whole voxels allow.

        Args:
            kind: how.
            shape: (x, y, z) of the grid.
            spacing_mm: its voxel size.
            wanted_mm: that of the other one; None keeps it.
        """
        if wanted_mm is None:
            return cls(kind, (shape, shape), (spacing_mm, spacing_mm))
        sizes = list(zip(shape, spacing_mm, wanted_mm, strict=True))
        if kind == "monai":
            x, y, z = (round((n - 1) * old / new + 1) for n, old, new in sizes)
            return cls(kind, (shape, (x, y, z)), (spacing_mm, wanted_mm))
        if kind == "nnunet":  # it decides on slices by the voxel size that is wanted
            x, y, z = (max(round(old / new * n), 1) for n, old, new in sizes)
            return cls(kind, (shape, (x, y, z)), (spacing_mm, wanted_mm))
        x, y, z = made = [max(round(n * old / new), 1) for n, old, new in sizes]
        spacing = [n * old / m for (n, old, _), m in zip(sizes, made, strict=True)]
        return cls(kind, (shape, (x, y, z)), (spacing_mm, spacing))

    @property
    def changes_nothing(self) -> bool:
        """Whether both grids are the same."""
        same_size = self.kind != "monai" or np.allclose(*self.spacings_mm)
        return self.shapes[0] == self.shapes[1] and same_size

    @property
    def takes_logits(self) -> bool:
        """Whether logits are brought back, as in nnU-Net, or probabilities."""
        return self.kind == "nnunet"

    def image(self, image: Tensor) -> Tensor:
        """An image (x, y, z), float32, on the other grid."""
        if self.changes_nothing:
            return image
        if self.kind == "nnunet":
            return torch.from_numpy(self._by_nnunet(image.numpy(), order=3))
        if self.kind == "monai":
            return self._between_centres(image[None])[0]
        smooth = self._smooth(image.numpy()) if self.kind == "linear" else image.numpy()
        return _linear(torch.from_numpy(smooth)[None], self.shapes[1])[0]

    def mask(self, mask: Tensor) -> Tensor:
        """A mask (x, y, z), 0 or 1 as float32, on the other grid, as bool."""
        return self.image(mask) > 0 if self.kind == "plain" else self._share(mask) >= 0.5

    def labels(self, rows: Tensor) -> Tensor:
        """Labels (x, y, z), uint8, on the other grid."""
        if self.changes_nothing:
            return rows
        if self.kind == "monai":
            for axis, place in enumerate(self._places()):
                rows = rows.index_select(axis, place.round().long())
            return rows
        nearest = interpolate(rows[None, None].float(), self.shapes[1], mode="nearest-exact")[0, 0]
        if self.kind == "plain":
            return nearest.to(torch.uint8)
        best = torch.full(self.shapes[1], -1.0)
        result = torch.zeros(self.shapes[1], dtype=torch.uint8)
        for row in rows.unique().tolist():
            share = self._share((rows == row).float()) + _TIE * (nearest == row)
            result[share > best] = row
            best = torch.maximum(best, share)
        return result

    def scores_back(self, scores: Tensor) -> Tensor:
        """Scores (C, x, y, z) on the other grid, on the first one again."""
        if self.changes_nothing:
            return scores
        back = Resampler(self.kind, self.shapes[::-1], self.spacings_mm[::-1])
        if self.kind == "monai":
            return back._between_centres(scores.float())
        if self.kind != "nnunet":
            return _linear(scores.float(), self.shapes[0])
        channels = scores.float().cpu().numpy()
        return torch.from_numpy(np.stack([back._by_nnunet(one, order=1) for one in channels]))

    def _share(self, mask: Tensor) -> Tensor:
        """How much of each voxel of the other grid a mask (x, y, z) of 0 and 1 covers."""
        if self.kind == "nnunet":
            return torch.from_numpy(self._by_nnunet(mask.numpy(), order=1))
        return self.image(mask)

    def _places(self) -> list[Tensor]:
        """Where voxels of the other grid lie on the first, along each axis, as MONAI's `Spacing`.

        The centres of the first voxels coincide; what lies beyond the last is at its centre.
        """
        sizes = zip(self.shapes[0], self.shapes[1], *self.spacings_mm, strict=True)
        return [(torch.arange(m) * new / old).clamp(max=n - 1) for n, m, old, new in sizes]

    def _between_centres(self, volumes: Tensor) -> Tensor:
        """Volumes (C, x, y, z) by trilinear interpolation at these places."""
        for axis, place in enumerate(self._places(), start=1):
            place = place.to(volumes.device)
            low = place.floor().long()
            high = (low + 1).clamp(max=volumes.shape[axis] - 1)
            share = (place - low).view([-1 if n == axis else 1 for n in range(4)])
            first, last = volumes.index_select(axis, low), volumes.index_select(axis, high)
            volumes = torch.lerp(first, last, share.to(volumes.dtype))
        return volumes

    def _smooth(self, image: Array) -> Array:
        """A Gaussian along the axes that become coarser, so that no detail turns up as another.

        Its deviation is (r - 1) / 2 voxels for r voxels that become one, as in scikit-image.
        """
        ratios = [old / new for old, new in zip(*self.shapes, strict=True)]
        sigmas = [max(ratio - 1, 0) / 2 for ratio in ratios]
        if not any(sigmas):
            return image
        return np.asarray(ndimage.gaussian_filter(image, sigmas, mode="nearest"))

    def _by_nnunet(self, image: Array, order: int) -> Array:
        """By nnU-Net's rules: of anisotropic scans each slice, and then the nearest slice."""
        axis = self._thick_axis()
        if axis is None:
            return _zoom(image, self.shapes[1], order)
        slices = np.moveaxis(image, axis, 0)
        flat = [n for n in range(3) if n != axis]
        size = [self.shapes[1][n] for n in flat]
        made = np.stack([_zoom(one, size, order) for one in slices])
        return np.ascontiguousarray(np.moveaxis(made[self._slices_of(axis)], 0, axis))

    def _thick_axis(self) -> int | None:
        """The axis along which voxels are much larger than along both others."""
        for spacing in self.spacings_mm:
            if max(spacing) / min(spacing) > _ANISOTROPIC:
                thick = [n for n in range(3) if np.isclose(spacing[n], max(spacing))]
                return thick[0] if len(thick) == 1 else None
        return None

    def _slices_of(self, axis: int) -> npt.NDArray[np.int64]:
        """The nearest old slice of each new one."""
        old, new = self.shapes[0][axis], self.shapes[1][axis]
        places = old / new * (np.arange(new) + 0.5) - 0.5
        return np.asarray(np.clip(np.floor(places + 0.5), 0, old - 1), np.int64)


def _linear(volumes: Tensor, shape: Sequence[int]) -> Tensor:
    """Volumes (C, x, y, z) by trilinear interpolation."""
    return interpolate(volumes[None], size=tuple(shape), mode="trilinear")[0]


def _zoom(image: Array, shape: Sequence[int], order: int) -> Array:
    """An image, by splines of an order, within the range that it had."""
    if image.shape == tuple(shape):
        return image
    ratios = [new / old for new, old in zip(shape, image.shape, strict=True)]
    made = ndimage.zoom(
        image.astype(np.float64), ratios, order=order, mode="nearest", grid_mode=True
    )
    return np.asarray(np.clip(made, image.min(), image.max()), np.float32)
