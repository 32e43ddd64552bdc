"""Contrast, bias field, resolution and noise."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from hsf_finetune.data.augment.batch_changes import BatchChanges
from hsf_finetune.data.augment.smooth_fields import make_smooth_field, multiply_axes

TINY = torch.finfo(torch.float32).tiny


def change_intensity(image: Tensor, changes: BatchChanges, i: int) -> Tensor:
    """Changes contrast, bias field, resolution and noise of sample `i`, (C, X, Y, Z), of a batch.

    Returns:
        The changed image, same shape; the same tensor where nothing changes.
    """
    if changes.gamma[i] or changes.bias[i]:
        image = _change_contrast(image.float(), changes, i)
    if changes.blur[i] or changes.lowres[i]:
        image = multiply_axes(image.float(), _resolution_matrices(image.shape[1:], changes, i))
    if changes.noise[i]:
        generator = torch.Generator(image.device).manual_seed(int(changes.noise_seed[i]))
        noise = torch.empty(image.shape, device=image.device).normal_(generator=generator)
        std = changes.noise_std[i].to(image.device).view(-1, 1, 1, 1)
        image = noise.mul_(std).add_(image)
    return image


def _change_contrast(image: Tensor, changes: BatchChanges, i: int) -> Tensor:
    """Power and gain of the intensities above the minimum; mean and deviation stay."""
    axes = (1, 2, 3)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    share = image.sub(low).div_((high - low).clamp_min(TINY))
    log = share.clamp_min_(1e-6).log_()
    if changes.gamma[i]:
        log *= changes.exponent[i].to(image.device).view(-1, 1, 1, 1)
    if changes.bias[i]:
        log += make_smooth_field(changes.log_gain[i].to(image.device), image.shape[1:])
    changed = log.exp_()
    _, before = _centre(image)
    centred, after = _centre(changed)
    mean = image.mean(axes, keepdim=True)
    return centred.mul_(before / after.clamp_min(TINY)).add_(mean)


def _centre(image: Tensor) -> tuple[Tensor, Tensor]:
    """Image minus its mean, and its standard deviation as (C, 1, 1, 1)."""
    centred = image - image.mean((1, 2, 3), keepdim=True)
    norm = torch.linalg.vector_norm(centred.flatten(1), dim=1).view(-1, 1, 1, 1)
    return centred, norm / math.sqrt(image[0].numel())


def _resolution_matrices(shape: torch.Size, changes: BatchChanges, i: int) -> list[Tensor]:
    """Per axis the (C, n, n) matrix that blurs, then averages and interpolates voxels."""
    matrices = []
    for axis, n in enumerate(shape):
        matrix = torch.eye(n)[None]
        if changes.blur[i]:
            sigmas = changes.sigma_vox[i, :, axis].tolist()
            matrix = torch.stack([_gaussian_matrix(n, sigma) for sigma in sigmas])
        if changes.lowres[i]:
            factors = changes.factor[i, :, axis].tolist()
            matrix = torch.stack([_coarse_matrix(n, round(n / f)) for f in factors]) @ matrix
        matrices.append(matrix)
    return matrices


def _gaussian_matrix(n: int, sigma_vox: float) -> Tensor:
    """(n, n) Gaussian smoothing, its weights renormalised at the borders."""
    if sigma_vox == 0:
        return torch.eye(n)
    index = torch.arange(n) / sigma_vox
    # Smaller weights would only be denormal numbers, which are slow.
    weights = (index[:, None] - index).square_().mul_(-0.5).clamp_min_(-20).exp_()
    return weights.div_(weights.sum(1, keepdim=True))


@lru_cache(maxsize=1024)
def _coarse_matrix(n: int, cells: int) -> Tensor:
    """(n, n) averages over a number of cells, interpolated linearly to n voxels again."""
    if cells == n:
        return torch.eye(n)
    ratio = cells / n
    start, cell = torch.arange(n) * ratio, torch.arange(cells)[:, None]
    overlap = torch.minimum(start + ratio, cell + 1) - torch.maximum(start, cell)
    centre = (start + (ratio - 1) / 2).clamp(0, cells - 1)
    linear = (1 - (centre[:, None] - torch.arange(cells)).abs()).clamp_min(0)
    return linear @ overlap.clamp_min(0)
