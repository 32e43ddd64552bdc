"""Volumes at another voxel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hsf_finetune.config.settings.preprocessing_settings import Resampling
from hsf_finetune.data.volumes.affines import Affine

Triple = tuple[int, int, int]
Array = npt.NDArray[np.float32]

_ANISOTROPIC = 3.0
"""Ratio of voxel sizes beyond which nnU-Net resamples slices."""

_OF_MONAI = ("monai", "monai_nearest")
_SAME_MM = 1e-3
"""MONAI leaves axes as they are whose voxel size differs from the wanted one by no more."""

_TIE = 1e-5
"""Where labels have equal shares of a voxel, the nearest one gets this much more."""


@dataclass(frozen=True)
class Resampler:
    """Resampling between a grid and another one.

    Args:
        kind: how, see `Resampling`.
        shapes: (x, y, z) of the one grid and of the other.
        spacings_mm: their voxel sizes.
        affines: 4x4 each, from their voxels to millimetres; of MONAI's kinds only.

    Both cover the same box, but for MONAI's kinds, whose first voxels have one centre.
    """

    kind: Resampling
    shapes: tuple[Triple, Triple]
    spacings_mm: tuple[Sequence[float], Sequence[float]]
    affines: tuple[Affine, Affine] | None = None

    @classmethod
    def to_spacing(
        cls,
        kind: Resampling,
        shape: Triple,
        spacing_mm: Sequence[float],
        wanted_mm: Sequence[float] | None,
        affine: Affine | None = None,
    ) -> Resampler:
        """From a grid to one of another voxel size, as near to it as whole voxels allow.

        Args:
            kind: how.
            shape: (x, y, z) of the grid.
            spacing_mm: its voxel size.
            wanted_mm: that of the other one; None keeps it.
            affine: 4x4 of the grid, which decides MONAI's rounding; None is that of its spacing.
        """
        if wanted_mm is None:
            return cls(kind, (shape, shape), (spacing_mm, spacing_mm))
        sizes = list(zip(shape, spacing_mm, wanted_mm, strict=True))
        if kind in _OF_MONAI:
            new = [old if abs(old - mm) <= _SAME_MM else mm for _, old, mm in sizes]
            affine = np.diag([*spacing_mm, 1.0]) if affine is None else affine
            size, other = _grid_of_monai(affine, shape, new)
            return cls(kind, (shape, size), (spacing_mm, new), (affine, other))
        if kind == "nnunet":  # it decides on slices by the voxel size that is wanted
            x, y, z = (max(round(old / new * n), 1) for n, old, new in sizes)
            return cls(kind, (shape, (x, y, z)), (spacing_mm, wanted_mm))
        x, y, z = made = [max(round(n * old / new), 1) for n, old, new in sizes]
        spacing = [n * old / m for (n, old, _), m in zip(sizes, made, strict=True)]
        return cls(kind, (shape, (x, y, z)), (spacing_mm, spacing))

    @property
    def changes_nothing(self) -> bool:
        """Whether both grids are the same."""
        same_size = self.kind not in _OF_MONAI or np.allclose(*self.spacings_mm)
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
        if self.kind in _OF_MONAI:
            return self._by_monai(image, "bilinear")
        smooth = self._smooth(image.numpy()) if self.kind == "linear" else image.numpy()
        return _linear(torch.from_numpy(smooth)[None], self.shapes[1])[0]

    def mask(self, mask: Tensor) -> Tensor:
        """A mask (x, y, z), 0 or 1 as float32, on the other grid, as bool."""
        return self.image(mask) > 0 if self.kind == "plain" else self._share(mask) >= 0.5

    def labels(self, rows: Tensor) -> Tensor:
        """Labels (x, y, z), uint8, on the other grid."""
        if self.changes_nothing:
            return rows
        if self.kind in _OF_MONAI:
            return self._by_monai(rows, "nearest").to(rows.dtype)
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
        if self.affines is not None:
            back = replace(back, affines=self.affines[::-1])
            mode = "nearest" if self.kind == "monai_nearest" else "bilinear"
            return torch.stack([back._by_monai(one, mode) for one in scores])
        if self.kind != "nnunet":
            return _linear(scores.float(), self.shapes[0])
        channels = scores.float().cpu().numpy()
        return torch.from_numpy(np.stack([back._by_nnunet(one, order=1) for one in channels]))

    def _share(self, mask: Tensor) -> Tensor:
        """How much of each voxel of the other grid a mask (x, y, z) of 0 and 1 covers."""
        if self.kind == "nnunet":
            return torch.from_numpy(self._by_nnunet(mask.numpy(), order=1))
        return self.image(mask)

    def _by_monai(self, volume: Tensor, mode: str) -> Tensor:
        """A volume (x, y, z) as MONAI's `Spacing` resamples it, or returns.

        By MONAI itself: where a voxel lies on one of the other grid, its rounding decides whether
        it is 0 there, on which a z-score of what is not 0 depends.
        """
        from monai.data.meta_tensor import MetaTensor
        from monai.transforms.spatial.array import SpatialResample

        assert self.affines is not None
        old, new = (torch.from_numpy(one) for one in self.affines)
        resample = SpatialResample(mode=mode, padding_mode="border", align_corners=False)
        made = resample(MetaTensor(volume[None], affine=old), new, list(self.shapes[1]))
        found: Tensor = made.as_tensor()[0]  # type: ignore[attr-defined]
        return found

    def _smooth(self, image: Array) -> Array:
        """A Gaussian along the axes that become coarser, so that no detail turns up as another.

        Its deviation is (r - 1) / 2 voxels for r voxels that become one, as in scikit-image.
        """
        ratios = [old / new for old, new in zip(*self.shapes, strict=True)]
        sigmas = [max(ratio - 1, 0) / 2 for ratio in ratios]
        if not any(sigmas):
            return image
        return np.asarray(scipy.ndimage.gaussian_filter(image, sigmas, mode="nearest"))

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


def _grid_of_monai(
    affine: Affine, shape: Triple, spacing_mm: Sequence[float]
) -> tuple[Triple, Affine]:
    """Shape and affine of the grid that MONAI's `Spacing` makes of another one."""
    from monai.data.utils import compute_shape_offset, zoom_affine

    made = zoom_affine(affine, spacing_mm, diagonal=False)
    sizes, made[:3, 3] = compute_shape_offset(shape, affine, made)
    x, y, z = (int(n) for n in sizes)
    return (x, y, z), made


def _linear(volumes: Tensor, shape: Sequence[int]) -> Tensor:
    """Volumes (C, x, y, z) by trilinear interpolation."""
    return interpolate(volumes[None], size=tuple(shape), mode="trilinear")[0]


def _zoom(image: Array, shape: Sequence[int], order: int) -> Array:
    """An image, by splines of an order, within the range that it had."""
    if image.shape == tuple(shape):
        return image
    ratios = [new / old for new, old in zip(shape, image.shape, strict=True)]
    made = scipy.ndimage.zoom(
        image.astype(np.float64), ratios, order=order, mode="nearest", grid_mode=True
    )
    return np.asarray(np.clip(made, image.min(), image.max()), np.float32)
