"""Volumes that are too large for their file, or for the memory, which are refused before they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psutil

from hsf_finetune.system.errors import DataError

if TYPE_CHECKING:
    from hsf_finetune.data.volumes.read_volume import VolumeRef

_SURELY_BYTES, _DENSEST = 1 << 30, 500
"""A file that claims more than this, and so many times its own size, is damaged or hostile:
only constant volumes are stored so densely."""


def refuse_huge(
    shape: Sequence[int], itemsize: int, ref: VolumeRef, stored: int | None = None
) -> int:
    """The bytes of a volume's voxels, of `itemsize` bytes each.

    `stored` is the size of its files, where the volume is not in one.

    Raises:
        DataError: they cannot be in the file, or in memory.
    """
    size = math.prod(map(int, shape)) * itemsize
    stored = ref.path.stat().st_size if stored is None else stored
    free = psutil.virtual_memory().available
    too_dense = size > max(_SURELY_BYTES, _DENSEST * stored)
    if too_dense or size > free:
        raise DataError(
            "the volume is too large to be read",
            file=ref,
            found=f"shape {tuple(shape)}, {size / 1e9:.3g} GB of voxels, in a file of "
            f"{stored / 1e6:.3g} MB",
            expected="voxels that the file has room for" if too_dense else f"{free / 1e9:.3g} GB",
            fix="crop it",
        )
    return size
