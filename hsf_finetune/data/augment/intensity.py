"""Contrast, bias field, resolution and noise."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from hsf_finetune.data.augment.parameters import Parameters
from hsf_finetune.data.augment.smooth_fields import separable, smooth_field

TINY = torch.finfo(torch.float32).tiny


def intensity(image: Tensor, p: Parameters, i: int) -> Tensor:
    """Applies contrast, bias field, resolution and noise drawn for sample `i`.

    Args:
        image: (C, X, Y, Z).
        p: the batch's drawn parameters.
        i: which sample this is.
    """
    if p.gamma[i] or p.bias[i]:
        image = _contrast(image.float(), p, i)
    if p.blur[i] or p.lowres[i]:
        image = separable(image.float(), _resolution(image.shape[1:], p, i))
    if p.noise[i]:
        generator = torch.Generator(image.device).manual_seed(int(p.noise_seed[i]))
        noise = torch.empty(image.shape, device=image.device).normal_(generator=generator)
        std = p.noise_std[i].to(image.device).view(-1, 1, 1, 1)
        image = noise.mul_(std).add_(image)
    return image


def _contrast(image: Tensor, p: Parameters, i: int) -> Tensor:
    """Power and gain of the intensities above the minimum; mean and deviation stay."""
    axes = (1, 2, 3)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    share = image.sub(low).div_((high - low).clamp_min(TINY))
    log = share.clamp_min_(1e-6).log_()
    if p.gamma[i]:
        log *= p.exponent[i].to(image.device).view(-1, 1, 1, 1)
    if p.bias[i]:
        log += smooth_field(p.log_gain[i].to(image.device), image.shape[1:])
    changed = log.exp_()
    _, before = _deviation(image)
    centred, after = _deviation(changed)
    mean = image.mean(axes, keepdim=True)
    return centred.mul_(before / after.clamp_min(TINY)).add_(mean)


def _deviation(image: Tensor) -> tuple[Tensor, Tensor]:
    """Image less its mean, and its standard deviation as (C, 1, 1, 1)."""
    centred = image - image.mean((1, 2, 3), keepdim=True)
    norm = torch.linalg.vector_norm(centred.flatten(1), dim=1).view(-1, 1, 1, 1)
    return centred, norm / math.sqrt(image[0].numel())


def _resolution(shape: torch.Size, p: Parameters, i: int) -> list[Tensor]:
    """Per axis the (C, n, n) matrix that blurs, then averages and interpolates voxels."""
    matrices = []
    for axis, n in enumerate(shape):
        matrix = torch.eye(n)[None]
        if p.blur[i]:
            matrix = torch.stack([_gaussian(n, s) for s in p.sigma_vox[i, :, axis].tolist()])
        if p.lowres[i]:
            matrix = (
                torch.stack([_coarse(n, round(n / f)) for f in p.factor[i, :, axis].tolist()])
                @ matrix
            )
        matrices.append(matrix)
    return matrices


def _gaussian(n: int, sigma_vox: float) -> Tensor:
    """(n, n) Gaussian smoothing, its weights renormalised at the borders."""
    if sigma_vox == 0:
        return torch.eye(n)
    index = torch.arange(n) / sigma_vox
    # Smaller weights would only be denormal numbers, which are slow.
    weights = (index[:, None] - index).square_().mul_(-0.5).clamp_min_(-20).exp_()
    return weights.div_(weights.sum(1, keepdim=True))


@lru_cache(maxsize=1024)
def _coarse(n: int, cells: int) -> Tensor:
    """(n, n) averages over a number of cells, interpolated linearly back to n voxels."""
    if cells == n:
        return torch.eye(n)
    ratio = cells / n
    start, cell = torch.arange(n) * ratio, torch.arange(cells)[:, None]
    overlap = torch.minimum(start + ratio, cell + 1) - torch.maximum(start, cell)
    centre = (start + (ratio - 1) / 2).clamp(0, cells - 1)
    linear = (1 - (centre[:, None] - torch.arange(cells)).abs()).clamp_min(0)
    return linear @ overlap.clamp_min(0)
