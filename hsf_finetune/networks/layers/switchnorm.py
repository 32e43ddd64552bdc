"""Switchable normalisation, which learns the weights of several statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SPACE = (2, 3, 4)


class SwitchNorm(nn.Module):
    """Normalisation by a learnt mix of instance and layer statistics.

    Luo et al. 2019 ("Differentiable learning-to-normalize via switchable normalization",
    arXiv:1806.10779), without its batch statistics, so that training and evaluation are
    the same and a case does not depend on its batch. Variances are unbiased over space;
    means and variances are mixed separately, each by the softmax of two numbers.

    Args:
        channels: channels of the input.
    """

    eps = 1e-5
    """Added to the variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1, 1))
        self.mean_weight = nn.Parameter(torch.ones(2))
        self.var_weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised (B, C, X, Y, Z), in the input's precision.

        Raises:
            ValueError: there is only one voxel, which has no variance.
        """
        voxels = x.shape[2] * x.shape[3] * x.shape[4]
        if voxels < 2:
            raise ValueError(f"expected more than one voxel per channel, got {tuple(x.shape)}")
        # Sums over a volume in half precision would lose most of it.
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean = wide.mean(_SPACE, keepdim=True)
        # Centred squares are as exact as torch.var_mean, and several times faster on CPUs.
        centred = wide - mean
        var = centred.square().sum(_SPACE, keepdim=True) / (voxels - 1)
        layer_mean = mean.mean(1, keepdim=True)
        layer_var = (var + mean.square()).mean(1, keepdim=True) - layer_mean.square()
        of_mean, of_var = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        mixed_mean = of_mean[0] * mean + of_mean[1] * layer_mean
        mixed_var = of_var[0] * var + of_var[1] * layer_var
        scale = self.weight * (mixed_var + self.eps).rsqrt()
        shift = self.bias + (mean - mixed_mean) * scale
        return (centred * scale + shift).to(x.dtype)
