"""Padding volumes to sizes that a network can halve."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def padded_shape(shape: Sequence[int], divisor: Sequence[int]) -> tuple[int, int, int]:
    """The smallest multiples of `divisor` that hold `shape`.

    One multiple alone would leave a single voxel at the bottleneck, over which no
    instance norm is defined, so where a network halves it is at least two.
    """
    x, y, z = (
        max(-(-n // d) * d, 2 * d if d > 1 else 1) for n, d in zip(shape, divisor, strict=True)
    )
    return (x, y, z)


def pad_to(volume: Tensor, shape: Sequence[int], value: float) -> Tensor:
    """Pads the last three axes at their ends up to `shape`."""
    missing = [n - size for n, size in zip(shape, volume.shape[-3:], strict=True)]
    if not any(missing):
        return volume
    return functional.pad(volume, [w for n in reversed(missing) for w in (0, n)], value=value)
