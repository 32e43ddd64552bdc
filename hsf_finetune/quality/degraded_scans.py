"""Degraded copies of a case, which a model segments worse: from them it is learnt how that shows."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hsf_finetune.config.settings.preprocessing_settings import ZScoreIntensity
from hsf_finetune.data.preprocessing.normalise_intensity import normalise_intensity
from hsf_finetune.data.volumes.read_volume import Volume

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.uint8]
Copy = tuple[list[Volume], Rows]
"""The channels of a case, and its label rows, (X, Y, Z), on their grid."""

_MOST_CUT = 0.35
"""Share of an axis that a crop may leave out."""
_THICKEST = 3.0
"""Largest ratio of slice thickness to the scan's own."""


def degrade(kind: str, channels: Sequence[Volume], rows: Rows, random: np.random.Generator) -> Copy:
    """A copy of a case with one fault, of random strength.

    Inverted contrast is none of them: models are sure of what they find in such scans, and wrong;
    the remark `scan/contrast` tells them apart.

    Noise, bias fields, motion and gamma are TorchIO's (Perez-Garcia et al., CMPB 208, 2021).

    Args:
        kind: one of `KINDS`.
        channels: of the case, on one grid.
        rows: its label rows, (X, Y, Z).
        random: source of everything that is drawn.
    """
    return KINDS[kind](channels, rows, random)


# -------------------------------------------------------------------- internals
def _crop(channels: Sequence[Volume], rows: Rows, random: np.random.Generator) -> Copy:
    """Part of the scan: it may cut the structure."""
    left_out = [int(random.uniform(0, _MOST_CUT) * n) for n in rows.shape]
    first = [int(random.uniform(0, n + 1)) for n in left_out]
    x, y, z = (
        slice(start, start + n - less)
        for start, n, less in zip(first, rows.shape, left_out, strict=True)
    )

    def cut(volume: Volume) -> Volume:
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array(first)
        return _with(volume, volume.array[x, y, z], affine)

    return [cut(volume) for volume in channels], rows[x, y, z]


def _thicken(channels: Sequence[Volume], rows: Rows, random: np.random.Generator) -> Copy:
    """Thicker slices along one axis: averages of the scan, and the most frequent label."""
    axis = int(random.integers(3))
    n = rows.shape[axis]
    thick = max(round(n / random.uniform(1.5, _THICKEST)), min(n, 4))
    start, edge = np.arange(n), np.linspace(0, n, thick + 1)
    overlap = np.minimum(start + 1, edge[1:, None]) - np.maximum(start, edge[:-1, None])
    shares = np.clip(overlap, 0, None) * thick / n

    def average(array: Array) -> Array:
        return np.moveaxis(np.tensordot(shares, np.moveaxis(array, axis, 0), 1), 0, axis)

    def thicken(volume: Volume) -> Volume:
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (n / thick - 1) / 2
        affine[:3, axis] *= n / thick
        return _with(volume, average(volume.array), affine)

    best, found = None, np.zeros(0, np.uint8)
    for row in np.unique(rows):
        share = average(rows == row)
        found = np.full(share.shape, row) if best is None else np.where(share > best, row, found)
        best = share if best is None else np.maximum(best, share)
    return [thicken(volume) for volume in channels], found.astype(np.uint8)


def _by_torchio(make: Callable[[Any, np.random.Generator], Any]) -> Callable[..., Copy]:
    """A fault of the intensities, as a transform of TorchIO."""

    def change(channels: Sequence[Volume], rows: Rows, random: np.random.Generator) -> Copy:
        tio = importlib.import_module("torchio")  # only now, since it takes a second or more
        transform, seed = make(tio, random), int(random.integers(2**31))
        changed = []
        for channel in channels:
            image = torch.from_numpy(np.array(channel.array, dtype=np.float32))
            image = normalise_intensity(image, ZScoreIntensity())
            # TorchIO's noise seeds every device.
            devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            with torch.random.fork_rng(devices), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.default_generator.manual_seed(seed)
                done = transform(tio.ScalarImage(tensor=image[None], affine=channel.affine))
            changed.append(_with(channel, done.data[0].numpy(), channel.affine))
        return changed, rows

    return change


def _with(volume: Volume, array: Array, affine: Array) -> Volume:
    array = np.ascontiguousarray(array, dtype=np.float32)
    return replace(volume, array=array, affine=affine, stored_shape=array.shape, header=None)


KINDS: Mapping[str, Callable[[Sequence[Volume], Rows, np.random.Generator], Copy]] = {
    "noise": _by_torchio(lambda tio, random: tio.RandomNoise(std=(0.1, 1.0))),
    "crop": _crop,
    "motion": _by_torchio(
        lambda tio, random: tio.RandomMotion(6, 5, num_transforms=int(random.integers(1, 4)))
    ),
    "thick slices": _thicken,
    "bias field": _by_torchio(
        lambda tio, random: tio.RandomBiasField(coefficients=float(random.uniform(0.3, 1.5)))
    ),
    "gamma": _by_torchio(lambda tio, random: tio.RandomGamma(log_gamma=1.2)),
}
"""Kind of fault -> what makes a copy with it."""
