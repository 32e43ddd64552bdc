"""What an augmentation does to each sample of a batch, as drawn numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Parameters:
    """What happens to each of B samples with C channels; every tensor lies on the CPU.

    The masks of shape (B,) say which samples a change concerns; the other fields hold
    values for all of them. Axes are X, Y, Z; P is the number of control points.

    Args:
        flip: (B, 3) bool, axes to reverse.
        affine: (B,) bool.
        rotation_rad: (B, 3) angles about the axes, applied X first, then Y, then Z.
        zoom: (B, 3) magnification along the axes, before the rotation.
        translation_vox: (B, 3) shift of the contents, last.
        elastic: (B,) bool.
        control_vox: (B, 3, P, P, P) displacement of the B-spline's control points.
        gamma: (B,) bool.
        exponent: (B, C) powers of the intensities.
        bias: (B,) bool.
        log_gain: (B, C, 4, 4, 4) logarithm of the gain at the B-spline's control points.
        blur: (B,) bool.
        sigma_vox: (B, C, 3) standard deviations of the Gaussian.
        lowres: (B,) bool.
        factor: (B, C, 3) how many voxels become one.
        noise: (B,) bool.
        noise_std: (B, C) in units of the z-normalised image.
        noise_seed: (B,) int64.
    """

    flip: Tensor
    affine: Tensor
    rotation_rad: Tensor
    zoom: Tensor
    translation_vox: Tensor
    elastic: Tensor
    control_vox: Tensor
    gamma: Tensor
    exponent: Tensor
    bias: Tensor
    log_gain: Tensor
    blur: Tensor
    sigma_vox: Tensor
    lowres: Tensor
    factor: Tensor
    noise: Tensor
    noise_std: Tensor
    noise_seed: Tensor
