"""The UNet of Models Genesis and SuPreM."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm

from hsf_finetune.config.settings import SuPreMUNetSettings
from hsf_finetune.networks.anatomy import Anatomy


class CaseNorm(nn.BatchNorm3d):
    """Batch normalisation of each image by itself, in evaluation as in training.

    The original takes the statistics of its batch, of one image where SuPreM predicts; the
    running ones are in its files, and never used.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z), normalised."""
        return instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class SuPreMDown(nn.Module):
    """Two convolutions after a maximum over 2x2x2 voxels.

    Args:
        channels: of the input, the first and the second convolution.
        halves: whether there is the maximum.
    """

    def __init__(self, channels: tuple[int, int, int], halves: bool) -> None:
        super().__init__()
        self.halving = nn.MaxPool3d(2) if halves else nn.Identity()
        self.ops = _convolutions(*channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, X, Y, Z) to (B, more channels, half of each)."""
        features: Tensor = self.ops(self.halving(x))
        return features


class SuPreMUp(nn.Module):
    """Doubling, and two convolutions of what comes from below and from the encoder.

    Args:
        below: channels from below.
        skip: channels of the encoder's level, and of the result.
    """

    def __init__(self, below: int, skip: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(below, below, 2, stride=2)
        self.ops = _convolutions(below + skip, skip, skip)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """(B, below, X, Y, Z) and (B, skip, 2X, 2Y, 2Z) to the latter's shape."""
        features: Tensor = self.ops(torch.cat((self.up_conv(below), skip), dim=1))
        return features


class SuPreMUNet(nn.Module):
    """The network, which gives logits; its tensors have the published names.

    Args:
        width: channels of the first convolution.
        in_channels: channels of the image.
        out_channels: classes, background included.
    """

    def __init__(self, width: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        w = width
        self.down_tr64 = SuPreMDown((in_channels, w, 2 * w), halves=False)
        self.down_tr128 = SuPreMDown((2 * w, 2 * w, 4 * w), halves=True)
        self.down_tr256 = SuPreMDown((4 * w, 4 * w, 8 * w), halves=True)
        self.down_tr512 = SuPreMDown((8 * w, 8 * w, 16 * w), halves=True)
        self.up_tr256 = SuPreMUp(16 * w, 8 * w)
        self.up_tr128 = SuPreMUp(8 * w, 4 * w)
        self.up_tr64 = SuPreMUp(4 * w, 2 * w)
        self.out_tr = nn.Sequential(OrderedDict(final_conv=nn.Conv3d(2 * w, out_channels, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z)."""
        first = self.down_tr64(x)
        second = self.down_tr128(first)
        third = self.down_tr256(second)
        x = self.up_tr256(self.down_tr512(third), third)
        logits: Tensor = self.out_tr(self.up_tr64(self.up_tr128(x, second), first))
        return logits


def suprem_unet(settings: SuPreMUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the UNet (Zhou et al. 2019, arXiv:1908.06912; Li et al. 2024, SuPreM, ICLR)."""
    network = SuPreMUNet(settings.width, in_channels, out_channels)
    down = (network.down_tr64, network.down_tr128, network.down_tr256)
    up = (network.up_tr64, network.up_tr128, network.up_tr256)
    return Anatomy.of_levels(network, down, network.down_tr512, up, network.out_tr, 8)


def _convolutions(before: int, first: int, second: int) -> nn.Sequential:
    """Two 3x3x3 convolutions, each normalised and cut off below zero."""
    layers = []
    for a, b in ((before, first), (first, second)):
        parts = OrderedDict(conv1=nn.Conv3d(a, b, 3, padding=1), bn1=CaseNorm(b), act=nn.ReLU())
        layers.append(nn.Sequential(parts))
    return nn.Sequential(*layers)
