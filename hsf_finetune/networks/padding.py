"""Padding volumes to sizes that a network can halve."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hsf_finetune.config.settings.preprocessing_settings import Padding as Padding
from hsf_finetune.config.settings.preprocessing_settings import PaddingMode


def padded_shape(shape: Sequence[int], divisor: Sequence[int]) -> tuple[int, int, int]:
    """The smallest multiples of `divisor` that hold `shape`.

    One multiple alone would leave a single voxel at the bottleneck, over which no
    instance norm is defined, so where a network halves it is at least two.
    """
    x, y, z = (
        max(-(-n // d) * d, 2 * d if d > 1 else 1) for n, d in zip(shape, divisor, strict=True)
    )
    return (x, y, z)


def pad_to(
    volume: Tensor,
    shape: Sequence[int],
    value: float,
    padding: Padding = "both",
    mode: PaddingMode = "zeros",
) -> Tensor:
    """Pads the last three axes up to `shape`, with `value` or with voxels of the volume."""
    missing = [n - size for n, size in zip(shape, volume.shape[-3:], strict=True)]
    return pad_around(volume, shape, front_widths(missing, padding), value, mode)


def pad_around(
    volume: Tensor,
    shape: Sequence[int],
    front: Sequence[int],
    value: float = 0.0,
    mode: PaddingMode = "zeros",
) -> Tensor:
    """Pads the last three axes up to `shape`, with so many voxels in front of each."""
    missing = [n - size for n, size in zip(shape, volume.shape[-3:], strict=True)]
    if not any(missing):
        return volume
    if mode != "zeros":
        for axis, first, size in zip((-3, -2, -1), front, shape, strict=True):
            places = torch.arange(-first, size - first, device=volume.device)
            volume = volume.index_select(axis, _inside(places, volume.shape[axis], mode))
        return volume
    widths = [
        w for n, f in zip(reversed(missing), reversed(front), strict=True) for w in (f, n - f)
    ]
    return functional.pad(volume, widths, value=value)


def remove_padding(volume: Tensor, shape: Sequence[int], padding: Padding = "both") -> Tensor:
    """The part of a padded volume that `pad_to` was given, of `shape` along the last three axes."""
    missing = [size - n for n, size in zip(shape, volume.shape[-3:], strict=True)]
    front = front_widths(missing, padding)
    x, y, z = (slice(f, f + n) for f, n in zip(front, shape, strict=True))
    return volume[..., x, y, z]


def front_widths(missing: Sequence[int], padding: Padding) -> list[int]:
    """How many of the missing voxels stand in front of each axis."""
    extra = {"both": 1, "symmetric": 0}
    return [(n + extra[padding]) // 2 if padding in extra else 0 for n in missing]


def _inside(places: Tensor, size: int, mode: PaddingMode) -> Tensor:
    """The voxels, of `size` along an axis, that stand for places before and behind them."""
    if mode == "replicate":
        return places.clamp(0, size - 1)
    places = places.remainder(max(2 * (size - 1), 1))
    return torch.minimum(places, 2 * (size - 1) - places)
