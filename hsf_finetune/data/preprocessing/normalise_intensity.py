"""The intensities of a scan as a network is given them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import (
    Ends,
    Intensity,
    IntensitySteps,
    MinMaxIntensity,
    PercentileIntensity,
    UnchangedIntensity,
    WindowIntensity,
    ZScoreIntensity,
)

_SMALLEST = 1e-8
"""A standard deviation or an interval is at least this, so that one value gives no infinity."""
_PART_VOX = 2**20
"""Voxels that are computed in double precision at a time."""


def normalise_intensity(
    image: Tensor, intensity: Intensity, outside: Tensor | None = None
) -> Tensor:
    """The intensities of one channel, normalised.

    Args:
        image: any shape.
        intensity: how.
        outside: voxels, of the same shape, that are not counted, and become 0, or the lowest
            value of an interval.

    Returns:
        float32, of the same shape.
    """
    copied = image.clone() if image.is_floating_point() else image.float()
    return normalise_in_place(copied, intensity, outside).float()


def normalise_in_place(
    image: Tensor, intensity: Intensity, outside: Tensor | None = None
) -> Tensor:
    """The same in the memory of the image, of floating-point numbers, since a volume may be large."""
    if isinstance(intensity, IntensitySteps):
        for step in intensity.steps:
            normalise_in_place(image, step, outside)
        return image
    if getattr(intensity, "mask", "whole") == "nonzero":
        zero = image == 0
        outside = zero if outside is None else outside | zero
    if isinstance(intensity, ZScoreIntensity):
        _z_score(image, intensity, outside)
    elif isinstance(intensity, WindowIntensity):
        _scale(image, (intensity.low, intensity.high), intensity.to, intensity.clip)
    elif not isinstance(intensity, UnchangedIntensity):
        counted = image if outside is None else image[~outside]
        interval, clip = _interval_of(counted.numpy(), intensity)
        _scale(image, interval, intensity.to, clip)
    if outside is not None:
        image.masked_fill_(outside, getattr(intensity, "to", (0.0,))[0])
    return image


def _z_score(image: Tensor, intensity: ZScoreIntensity, outside: Tensor | None) -> None:
    """Mean 0 and standard deviation 1; without clipping and mask as in HSF."""

    def widen(part: Tensor) -> Tensor:
        wide = part.to(torch.float64, copy=True)
        return wide if intensity.clip is None else wide.clamp_(*intensity.clip)

    mean, std = intensity.mean, intensity.std
    if mean is None or std is None:
        masks = repeat(None) if outside is None else _parts_of(outside)
        counted = (
            widen(part) if mask is None else widen(part[~mask])
            for part, mask in zip(_parts_of(image), masks, strict=False)
        )
        middle, width = _mean_and_std(counted)
        mean = middle if mean is None else mean
        std = max(width, _SMALLEST) if std is None else std
    for part in _parts_of(image):
        part.copy_(widen(part).sub_(mean).div_(std))


def _mean_and_std(parts: Iterable[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation of all numbers of several tensors, which are overwritten.

    Those of the parts are joined as by Chan et al. (The American Statistician 37:242, 1983).
    """
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        if not (size := part.numel()):
            continue
        middle = float(part.sum()) / size
        deviation = part.sub_(middle).flatten()
        apart, total = middle - mean, count + size
        squares += float(torch.dot(deviation, deviation)) + apart**2 * count * size / total
        mean = middle if size == total else mean + apart * size / total
        count = total
    return mean, math.sqrt(squares / (count - 1)) if count > 1 else 0.0


def _parts_of(image: Tensor) -> Sequence[Tensor]:
    """The planes of an image, some at a time: numbers in double precision take twice the memory."""
    planes = max(_PART_VOX * len(image) // max(image.numel(), 1), 1)
    return [image[first : first + planes] for first in range(0, len(image), planes)]


def _interval_of(
    counted: np.ndarray, intensity: PercentileIntensity | MinMaxIntensity
) -> tuple[Ends, bool]:
    """The interval of a scan that is scaled, and whether what is beyond is clipped."""
    if not counted.size:
        return (0.0, 1.0), False
    if isinstance(intensity, MinMaxIntensity):
        return (float(counted.min()), float(counted.max())), False
    # The two values beside each percentile, since np.percentile rounds as its input does.
    places = np.asarray([intensity.low, intensity.high]) / 100 * (counted.size - 1)
    first, last = np.floor(places).astype(int), np.ceil(places).astype(int)
    ordered = np.partition(counted, [*first, *last], axis=None)
    below, above = ordered[first].astype(np.float64), ordered[last].astype(np.float64)
    low, high = below + (above - below) * (places - first)
    return (float(low), float(high)), intensity.clip


def _scale(image: Tensor, interval: Ends, to: Ends, clip: bool) -> None:
    """An interval of intensities, brought to another one."""
    (low, high), (a, b) = interval, to
    for part in _parts_of(image):
        share = part.to(torch.float64, copy=True).sub_(low).div_(max(high - low, _SMALLEST))
        part.copy_((share.clamp_(0, 1) if clip else share).mul_(b - a).add_(a))
