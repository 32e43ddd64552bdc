"""The intensities of a scan as a network is given them."""

from __future__ import annotations

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
    if isinstance(intensity, IntensitySteps):
        for step in intensity.steps:
            image = normalise_intensity(image, step, outside)
        return image
    if getattr(intensity, "mask", "whole") == "nonzero":
        zero = image == 0
        outside = zero if outside is None else outside | zero
    if isinstance(intensity, UnchangedIntensity):
        return image.float() if outside is None else image.float().masked_fill(outside, 0.0)
    if isinstance(intensity, ZScoreIntensity):
        return _z_score(image, intensity, outside)
    if isinstance(intensity, WindowIntensity):
        interval, clip = (intensity.low, intensity.high), intensity.clip
    else:
        counted = (image if outside is None else image[~outside]).double().numpy()
        interval, clip = _interval_of(counted, intensity)
    scaled = _scale(image, interval, intensity.to, clip)
    return scaled if outside is None else scaled.masked_fill(outside, intensity.to[0])


def _z_score(image: Tensor, intensity: ZScoreIntensity, outside: Tensor | None) -> Tensor:
    """Mean 0 and standard deviation 1; without clipping and mask as in HSF."""
    wide = image.to(torch.float64, copy=True)
    if intensity.clip is not None:
        wide.clamp_(*intensity.clip)
    mean, std = intensity.mean, intensity.std
    if mean is None or std is None:
        counted = wide if outside is None else wide[~outside]
        if not counted.numel():
            counted = wide.new_zeros(2)
        middle = counted.mean() if mean is None else mean
        width = counted.std().clamp_min(_SMALLEST) if std is None else std
    else:
        middle, width = mean, std
    normal = wide.sub_(middle).div_(width).float()  # in place: a volume may be large
    return normal if outside is None else normal.masked_fill(outside, 0.0)


def _interval_of(
    counted: np.ndarray, intensity: PercentileIntensity | MinMaxIntensity
) -> tuple[Ends, bool]:
    """The interval of a scan that is scaled, and whether what is beyond is clipped."""
    if not counted.size:
        return (0.0, 1.0), False
    if isinstance(intensity, MinMaxIntensity):
        return (float(counted.min()), float(counted.max())), False
    low, high = np.percentile(counted, [intensity.low, intensity.high])
    return (float(low), float(high)), intensity.clip


def _scale(image: Tensor, interval: Ends, to: Ends, clip: bool) -> Tensor:
    """An interval of intensities, brought to another one."""
    (low, high), (a, b) = interval, to
    share = image.to(torch.float64, copy=True).sub_(low).div_(max(high - low, _SMALLEST))
    return (share.clamp_(0, 1) if clip else share).mul_(b - a).add_(a).float()
