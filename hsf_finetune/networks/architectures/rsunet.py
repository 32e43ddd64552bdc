"""PyTorch Connectomics' residual symmetric UNet, for images with RAS+ axes."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose3d

from hsf_finetune.config.settings import RSUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.axis_order import AxisOrder
from hsf_finetune.networks.layers.strides import Triple, divisor, triple


class BilinearDoubling(nn.Module):
    """Interpolation that is linear along the last two axes, with fixed weights.

    Along the first axis voxels are repeated; with a factor above 1, sums of two.

    Args:
        channels: of the input and the result.
        factors: how many times finer the result is along each axis.
    """

    weight: Tensor

    def __init__(self, channels: int, factors: Triple) -> None:
        super().__init__()
        x, y, z = (2 * factor - factor % 2 for factor in factors)
        half = math.ceil(z / 2)
        ramp = 1 - (torch.arange(z) / half - (z - 1) / (2 * half)).abs()
        weight = (ramp[:, None] * ramp).expand(channels, 1, x, y, z).clone()
        self.register_buffer("weight", weight)
        self._stride = factors
        self._padding = tuple(factor // 2 for factor in factors)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, X, Y, Z) to (B, channels, ...), larger by the factors."""
        return conv_transpose3d(
            x, self.weight, stride=self._stride, padding=self._padding, groups=x.shape[1]
        )


class RSUNetResidual(nn.Module):
    """Two convolutions, each after its norm and non-linearity, added to their input.

    Args:
        settings: norm and non-linearity.
        channels: of all.
        kernel: of the convolutions (odd).
    """

    def __init__(self, settings: RSUNetSettings, channels: int, kernel: Triple) -> None:
        super().__init__()
        self.norm_act1, self.conv1 = _convolution(settings, channels, channels, kernel)
        self.norm_act2, self.conv2 = _convolution(settings, channels, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, X, Y, Z) to the same shape."""
        inner: Tensor = self.conv2(self.norm_act2(self.conv1(self.norm_act1(x))))
        return inner + x


class RSUNetUp(nn.Module):
    """A decoder level: interpolation, addition of the skip connection, convolutions.

    Args:
        settings: norm and non-linearity.
        below: channels from below.
        channels: of the skip connection and the result.
        stride: how many times finer the level is than that below.
        kernel: of the convolutions (odd).
    """

    def __init__(
        self, settings: RSUNetSettings, below: int, channels: int, stride: Triple, kernel: Triple
    ) -> None:
        super().__init__()
        self.up = BilinearDoubling(below, stride)
        self.proj = nn.Conv3d(below, channels, 1, bias=False)
        self.conv = _block(settings, channels, channels, kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, below, ...) and (B, channels, X, Y, Z) to the latter's shape."""
        features: Tensor = self.conv(self.proj(self.up(x)) + skip)
        return features


class RSUNet(nn.Module):
    """The network; its tensors have the published names. It segments at one level.

    Args:
        settings: widths, kernels, strides, norm and non-linearity.
        in_channels: channels of the image.
        out_channels: classes, background included.
    """

    def __init__(self, settings: RSUNetSettings, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = settings.channels
        kernels = [triple(size) for size in settings.kernel_size or [3] * len(widths)]
        strides = [triple(size) for size in settings.strides or [2] * (len(widths) - 1)]
        self.order = AxisOrder(settings.orientation)
        self.strides = strides
        self.input_conv = _block(settings, in_channels, widths[0], kernels[0])
        levels = list(zip(pairwise(widths), strides, pairwise(kernels), strict=True))
        self.down_blocks = nn.ModuleList(
            nn.Sequential(
                OrderedDict(pool=nn.MaxPool3d(stride), conv=_block(settings, fine, coarse, kernel))
            )
            for (fine, coarse), stride, (_, kernel) in levels
        )
        self.up_blocks = nn.ModuleList(
            RSUNetUp(settings, coarse, fine, stride, kernel)
            for (fine, coarse), stride, (kernel, _) in reversed(levels)
        )
        self.final_norm = _norm_and_activation(settings, widths[0])
        self.output_head = nn.Conv3d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z) that are RAS+."""
        skips: list[Tensor] = [self.input_conv(self.order.to_network(x))]
        for down in self.down_blocks:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.up_blocks:
            x = up(x, skips.pop())
        return self.order.to_image(self.output_head(self.final_norm(x)))


def rsunet(settings: RSUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the residual symmetric UNet (Lee et al. 2017, arXiv:1706.00120)."""
    network = RSUNet(settings, in_channels, out_channels)
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    *down, deepest = network.down_blocks
    finest, *coarser = list(network.up_blocks)[::-1]
    up: list[list[nn.Module]] = [[finest, network.final_norm], *([block] for block in coarser)]
    multiples = network.order.along_image(divisor(network.strides))
    encoders = [network.input_conv, *down]
    return Anatomy.of_levels(network, encoders, deepest, up, network.output_head, multiples)


def _block(settings: RSUNetSettings, before: int, channels: int, kernel: Triple) -> nn.Sequential:
    """A convolution, a residual block and another convolution, all of pre-activations."""
    return nn.Sequential(
        OrderedDict(
            pre=_convolution(settings, before, channels, kernel),
            res=RSUNetResidual(settings, channels, kernel),
            post=_convolution(settings, channels, channels, kernel),
        )
    )


def _convolution(
    settings: RSUNetSettings, before: int, channels: int, kernel: Triple
) -> nn.Sequential:
    """Norm and non-linearity, and a convolution."""
    x, y, z = (side // 2 for side in kernel)
    conv = nn.Conv3d(before, channels, kernel, padding=(x, y, z), bias=False)
    return nn.Sequential(_norm_and_activation(settings, before), conv)


def _norm_and_activation(settings: RSUNetSettings, channels: int) -> nn.Sequential:
    norm: nn.Module = nn.BatchNorm3d(channels)
    if settings.norm == "group":
        most = min(settings.norm_groups, channels)
        groups = next(n for n in range(most, 0, -1) if channels % n == 0)
        norm = nn.GroupNorm(groups, channels)
    elif settings.norm == "instance_plain":
        norm = nn.InstanceNorm3d(channels)
    act = {
        "relu": nn.ReLU(inplace=True),
        "leakyrelu": nn.LeakyReLU(settings.negative_slope, inplace=True),
        "prelu": nn.PReLU(),
        "elu": nn.ELU(inplace=True),
    }[settings.act]
    return nn.Sequential(OrderedDict(norm=norm, act=act))
