"""Strides and kernels: one number for the three axes, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

Triple = tuple[int, int, int]


def triple(size: int | Sequence[int]) -> Triple:
    """A size along X, Y and Z."""
    x, y, z = (size, size, size) if isinstance(size, int) else size
    return x, y, z


def divisor(strides: Iterable[Triple]) -> Triple:
    """What X, Y and Z must be multiples of: the product of the strides along each."""
    x, y, z = (prod(along) for along in zip(*strides, strict=True))
    return x, y, z
