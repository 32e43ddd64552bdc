"""Padding volumes to sizes that a network can halve."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from hsf_finetune.config.settings.preprocessing_settings import Padding as Padding


def padded_shape(shape: Sequence[int], divisor: Sequence[int]) -> tuple[int, int, int]:
    """The smallest multiples of `divisor` that hold `shape`.

    One multiple alone would leave a single voxel at the bottleneck, over which no
    instance norm is defined, so where a network halves it is at least two.
    """
    x, y, z = (
        max(-(-n // d) * d, 2 * d if d > 1 else 1) for n, d in zip(shape, divisor, strict=True)
    )
    return (x, y, z)


def pad_to(volume: Tensor, shape: Sequence[int], value: float, padding: Padding = "both") -> Tensor:
    """Pads the last three axes up to `shape`."""
    missing = [n - size for n, size in zip(shape, volume.shape[-3:], strict=True)]
    if not any(missing):
        return volume
    front = _front_widths(missing, padding)
    widths = [
        w for n, f in zip(reversed(missing), reversed(front), strict=True) for w in (f, n - f)
    ]
    return functional.pad(volume, widths, value=value)


def remove_padding(volume: Tensor, shape: Sequence[int], padding: Padding = "both") -> Tensor:
    """The part of a padded volume that `pad_to` was given, of `shape` along the last three axes."""
    missing = [size - n for n, size in zip(shape, volume.shape[-3:], strict=True)]
    front = _front_widths(missing, padding)
    x, y, z = (slice(f, f + n) for f, n in zip(front, shape, strict=True))
    return volume[..., x, y, z]


def _front_widths(missing: Sequence[int], padding: Padding) -> list[int]:
    extra = {"both": 1, "symmetric": 0}
    return [(n + extra[padding]) // 2 if padding in extra else 0 for n in missing]
