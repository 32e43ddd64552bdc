"""How many volumes of which size an epoch is going to see, from the headers of the cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.resampling import Triple
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning.setup import Setup

_DRAWS = 64
"""Batches that are drawn to see how large one is on average."""


@dataclass(frozen=True)
class EpochVolumes:
    """The volumes that an epoch trains on and validates.

    Args:
        typical_vox: size of the volumes of an average batch.
        largest_vox: size of the volumes of the largest batch there can be.
        batch: volumes in a batch.
        batches: of an epoch.
        volume_vox: size of a typical validation volume, or of a window of it.
        volumes: how many volumes of that size validation comes to.
        largest_volume: voxels of the largest volume that is validated.
    """

    typical_vox: Triple
    largest_vox: Triple
    batch: int
    batches: int
    volume_vox: Triple
    volumes: float
    largest_volume: int


def count_epoch_volumes(setup: Setup, patch: Triple, batch: int) -> EpochVolumes:
    """The volumes of an epoch, for training volumes of at most `patch`, `batch` at a time.

    Raises:
        DataError: a header cannot be read.
    """
    split, settings, divisor = setup.split, setup.settings.datasets, setup.anatomy.divisor
    how = setup.card.preprocessing
    trained = [_at_most(_grid_shape(case, how), patch) for case in split.train]
    if how.padded_size == "window":  # so are the volumes of a batch
        trained = [patch] * len(trained)
    random = np.random.default_rng(0)
    drawn = [
        padded_shape(np.max([trained[i] for i in chosen], axis=0).tolist(), divisor)
        for chosen in random.integers(len(trained), size=(_DRAWS, min(batch, len(trained))))
    ]
    mean = float(np.mean([math.prod(shape) for shape in drawn]))
    window = how.window_vox
    validated = [_grid_shape(case, how) for case in split.validation]
    pieces = [padded_shape(_at_most(shape, window), divisor) for shape in validated]
    windows = [_windows(shape, window) for shape in validated]
    work = [n * math.prod(piece) for n, piece in zip(windows, pieces, strict=True)]
    volume = sorted(pieces, key=math.prod)[len(pieces) // 2]
    return EpochVolumes(
        min(drawn, key=lambda shape: abs(math.prod(shape) - mean)),
        padded_shape(np.max(trained, axis=0).tolist(), divisor),
        batch,
        -(-(settings.k_sample or len(trained)) // batch),
        volume,
        sum(work) / math.prod(volume),
        max(math.prod(shape) for shape in validated),
    )


def largest_shape(cases: Sequence[Case], how: Preprocessing) -> Triple:
    """The smallest box that holds the volumes of all cases, in voxels of the network's grid.

    Raises:
        DataError: a header cannot be read.
    """
    x, y, z = np.max([_grid_shape(case, how) for case in cases], axis=0).tolist()
    return (x, y, z)


def _grid_shape(case: Case, how: Preprocessing) -> Triple:
    """Size of a case as the network sees it."""
    return VoxelGrid.from_header(case.images[0], how).shape


def _at_most(shape: Sequence[int], most: Sequence[int]) -> Triple:
    x, y, z = (min(a, b) for a, b in zip(shape, most, strict=True))
    return (x, y, z)


def _windows(shape: Sequence[int], window: Sequence[int]) -> int:
    """Windows, half overlapping, that cover a volume."""
    sides = zip(shape, window, strict=True)
    return math.prod(1 + max(math.ceil((n - w) / max(w // 2, 1)), 0) for n, w in sides)
