"""Smooth fields over a volume, and products of matrices with its axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def make_smooth_field(control: Tensor, shape: Sequence[int]) -> Tensor:
    """A cubic B-spline of control points that span a volume, (C, P, P, P) -> (C, X, Y, Z)."""
    return multiply_axes(control, [_spline_matrix(n, control.shape[-1])[None] for n in shape])


@lru_cache(maxsize=64)
def _spline_matrix(n: int, points: int) -> Tensor:
    """(n, points) weights of uniform cubic B-splines with points - 3 cells over n voxels."""
    position = torch.linspace(0, points - 3, n)[:, None]
    distance = (position - (torch.arange(points) - 1)).abs()
    return ((2 - distance).clamp(0) ** 3 - 4 * (1 - distance).clamp(0) ** 3) / 6


def multiply_axes(volume: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiplies each axis of a (C, k, l, m) volume by its matrix, (C or 1, n, k) for the first."""
    for matrix in matrices:
        # The axis at the front is contracted and joins at the back: after three turns
        # the order is the original one.
        rest = volume.shape[2:]
        turned = volume.flatten(2).mT @ matrix.to(volume.device, non_blocking=True).mT
        volume = turned.view(len(turned), *rest, -1)
    return volume
