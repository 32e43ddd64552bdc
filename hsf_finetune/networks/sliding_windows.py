"""Logits of large volumes through overlapping windows, a few planes at a time."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.system.interruption import end_if_asked

_MOST_BYTES = 1 << 28
"""Sums of windows that take more than this are kept in a temporary file, on the CPU."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows that cover a volume.

    Args:
        size: of each of them, (x, y, z).
        starts: where they begin along x, y and z.
        weights: of their voxels, (x, y, z).
    """

    size: tuple[int, ...]
    starts: tuple[Sequence[int], ...]
    weights: Tensor

    @classmethod
    def at_steps(
        cls, shape: Sequence[int], size: Sequence[int], overlap: float, weights: Tensor
    ) -> Windows:
        """Windows at steps of their size, the last one at the end of the volume, as in MONAI."""
        starts = tuple(_stepped(n, w, overlap) for n, w in zip(shape, size, strict=True))
        return cls(tuple(size), starts, weights)

    @classmethod
    def even(
        cls, shape: Sequence[int], size: Sequence[int], overlap: float, weights: Tensor
    ) -> Windows:
        """Windows at equal distances, from one end of the volume to the other, as in nnU-Net."""
        starts = tuple(_even(n, w, overlap) for n, w in zip(shape, size, strict=True))
        return cls(tuple(size), starts, weights)

    @property
    def count(self) -> int:
        """How many there are."""
        return math.prod(map(len, self.starts))

    def slabs(self, network: Callable[[Tensor], Tensor], image: Tensor) -> Iterator[Tensor]:
        """Mean logits, weighted, plane by plane as soon as no further window covers a plane.

        Sums are held for as many planes as a window has: of many classes, those of a whole volume
        would be far larger than the scan.

        Args:
            network: (1, C, x, y, z) -> (1, classes, x, y, z).
            image: (B, C, X, Y, Z).

        Yields:
            (B, classes, planes, Y, Z), all X planes in their order.
        """
        weights, sums = self.weights.to(image.device), None
        for number, first in enumerate(self.starts[0]):
            for start in product([first], *self.starts[1:]):
                end_if_asked()
                x, y, z = (slice(n, n + w) for n, w in zip(start, self.size, strict=True))
                for case in range(len(image)):
                    logits = network(image[case : case + 1, :, x, y, z])[0]
                    if sums is None:
                        shape = (len(image), len(logits), self.size[0], *image.shape[3:])
                        sums = _Sums(shape, image.device)
                    sums.add(case, logits, weights, y, z)
                    del logits  # as large as a window; the next one is not held beside it
            assert sums is not None
            following = [*self.starts[0], first + self.size[0]][number + 1]
            yield from sums.finish(following - first)


class _Sums:
    """Weighted sums of logits over some planes, and the sums of the weights.

    Args:
        shape: (B, classes, planes, Y, Z).
        device: that holds them. On the CPU a temporary file does where they are large.
    """

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        shape = (shape[0], shape[1] + 1, *shape[2:])  # the last one is that of the weights
        size = 4 * math.prod(shape)
        self._map: mmap.mmap | None = None
        if device.type != "cpu" or size <= _MOST_BYTES:
            self._values = torch.zeros(tuple(shape), device=device)
            return
        with tempfile.TemporaryFile(prefix="hsf_finetune_") as file:
            if hasattr(os, "posix_fallocate"):  # so that a full disk is an error, not a signal
                os.posix_fallocate(file.fileno(), 0, size)
            array = np.memmap(file, np.float32, "r+", shape=tuple(shape))
        self._values, self._map = torch.from_numpy(array), array._mmap  # type: ignore[attr-defined]

    def add(self, case: int, logits: Tensor, weights: Tensor, y: slice, z: slice) -> None:
        """Adds the logits of a window, (classes, x, y, z), class by class, to save memory."""
        for number, one in enumerate(logits):
            self._values[case, number, :, y, z] += one * weights
            self._free_memory()
        if case == 0:
            self._values[0, -1, :, y, z] += weights

    def finish(self, planes: int) -> Iterator[Tensor]:
        """The means over the first planes; the others take their place, and zeros theirs."""
        few = max(_MOST_BYTES // 8 // (self._values[:, :, 0].nbytes), 1)
        for first in range(0, planes, few):
            part = self._values[:, :, first : min(first + few, planes)]
            yield part[:, :-1] / part[0, -1]
            self._free_memory()
        for plane in range(self._values.shape[2]):
            source = plane + planes
            if source < self._values.shape[2]:
                self._values[:, :, plane] = self._values[:, :, source]
            else:
                self._values[:, :, plane] = 0
            self._free_memory()

    def _free_memory(self) -> None:
        """What a file holds need not be in memory as well."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _stepped(size: int, window: int, overlap: float) -> list[int]:
    step = window if window == size else max(int(window * (1 - overlap)), 1)
    steps = math.ceil((size - window) / step)
    return [min(n * step, size - window) for n in range(steps + 1)]


def _even(size: int, window: int, overlap: float) -> list[int]:
    """At both ends of an axis, and between them with at least `overlap`."""
    rest = size - window
    steps = math.ceil(rest / (window * (1 - overlap)))
    return [round(rest / steps * n) for n in range(steps + 1)] if steps else [0]
