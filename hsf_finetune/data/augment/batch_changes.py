"""The random numbers behind an augmentation, drawn apart from the images they change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings

BIAS_POINTS = 4
"""Control points of the bias field along each axis."""


@dataclass(frozen=True)
class BatchChanges:
    """What happens to each of B samples with C channels; every tensor is on the CPU.

    The masks of shape (B,) tell which samples a change applies to; the other fields hold
    values for all samples. Axes are X, Y, Z; P is the number of control points.
    """

    flip: Tensor  # (B, 3) bool, axes to reverse
    affine: Tensor  # (B,) bool
    rotation_rad: Tensor  # (B, 3) angles about the axes, applied X first, then Y, then Z
    zoom: Tensor  # (B, 3) magnification along the axes, before the rotation
    translation_vox: Tensor  # (B, 3) shift of the contents, last
    elastic: Tensor  # (B,) bool
    control_vox: Tensor  # (B, 3, P, P, P) displacement of the B-spline's control points
    gamma: Tensor  # (B,) bool
    exponent: Tensor  # (B, C) powers of the intensities
    bias: Tensor  # (B,) bool
    log_gain: Tensor  # (B, C, 4, 4, 4) logarithm of the gain at the B-spline's control points
    blur: Tensor  # (B,) bool
    sigma_vox: Tensor  # (B, C, 3) standard deviations of the Gaussian
    lowres: Tensor  # (B,) bool
    factor: Tensor  # (B, C, 3) how many voxels become one
    noise: Tensor  # (B,) bool
    noise_std: Tensor  # (B, C) in units of the image, or its standard deviations
    noise_seed: Tensor  # (B,) int64


def draw_changes(
    settings: AugmentationSettings,
    batch_size: int,
    channels: int,
    flip_axes: Sequence[int],
    generator: torch.Generator,
) -> BatchChanges:
    """Draws the changes of a batch.

    One number decides on both affine and elastic deformation, and one on both gamma and
    bias field: each keeps its own probability, but they fall on the same samples, so that
    the computation they share is done once. Magnitudes are uniform between zero and the
    setting; zoom and gamma are uniform in the logarithm. The same count of numbers is
    drawn whatever the probabilities.

    Args:
        settings: probabilities and magnitudes; `pipeline` and `flip` are not read.
        batch_size: B.
        channels: C; each has its own intensity changes.
        flip_axes: axes (0, 1, 2) that may be reversed; empty forbids flips.
        generator: on the CPU, so that the draw does not depend on the device.
    """

    def draw_uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(batch_size, *shape).uniform_(low, high, generator=generator)

    s, points = settings, settings.elastic_points
    allowed = torch.tensor([axis in flip_axes for axis in range(3)])
    where, tone, *rest = torch.rand(8, batch_size, generator=generator)
    angle, zoom = math.radians(s.rotation_deg), math.log1p(s.scale)
    return BatchChanges(
        flip=(torch.stack(rest[3:], 1) < s.flip_p) & allowed,
        affine=where < s.affine_p,
        rotation_rad=draw_uniform(-angle, angle, 3),
        zoom=draw_uniform(-zoom, zoom, 3).exp(),
        translation_vox=draw_uniform(-s.translation_vox, s.translation_vox, 3),
        elastic=where < s.elastic_p,
        control_vox=draw_uniform(-s.elastic_vox, s.elastic_vox, 3, points, points, points),
        gamma=tone < s.gamma_p,
        exponent=draw_uniform(-s.gamma_log, s.gamma_log, channels).exp(),
        bias=tone < s.bias_p,
        log_gain=draw_uniform(-s.bias_log, s.bias_log, channels, *[BIAS_POINTS] * 3),
        blur=rest[0] < s.blur_p,
        sigma_vox=draw_uniform(0, s.blur_vox, channels, 3),
        lowres=rest[1] < s.lowres_p,
        factor=draw_uniform(1, s.lowres_factor, channels, 3),
        noise=rest[2] < s.noise_p,
        noise_std=draw_uniform(0, s.noise_std, channels),
        noise_seed=torch.randint(2**62, (batch_size,), generator=generator),
    )
