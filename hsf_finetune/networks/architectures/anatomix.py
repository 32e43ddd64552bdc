"""anatomix's UNet as a trunk, with a separate 1x1x1 head."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from hsf_finetune.config.settings import AnatomixSettings
from hsf_finetune.networks.anatomy import Anatomy

_POOLING = {"max": nn.MaxPool3d, "mean": nn.AvgPool3d}


class AnatomixUNet(nn.Module):
    """The network; the tensors of its trunk have the published names.

    Convolutions repeat the image mirrored at its border, which needs two voxels per axis at
    the deepest level.

    Args:
        settings: widths, levels, normalisation.
        in_channels: channels of the image.
        out_channels: classes, background included.
    """

    def __init__(self, settings: AnatomixSettings, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self._settings = settings
        widths = [settings.width * 2**level for level in range(settings.halvings + 1)]
        layers = [*self._convolved(in_channels, widths[0])]
        for before, width in pairwise([widths[0], *widths]):
            layers += [*self._convolved(before, width), *self._convolved(width, width)]
            layers.append(_POOLING[settings.pooling](2))
        # The deepest level ends in no halving.
        layers.pop()
        for below, width in pairwise(reversed(widths)):
            layers.append(nn.Upsample(scale_factor=2, mode=settings.upsample))
            layers += [*self._convolved(below + width, width), *self._convolved(width, width)]
        layers.append(self._convolution(widths[0], settings.features))
        self.model = nn.Sequential(*layers)
        self.head = nn.Conv3d(settings.features, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z)."""
        skips: list[Tensor] = []
        for layer in self.model:
            if isinstance(layer, tuple(_POOLING.values())):
                skips.append(x)
            x = layer(x)
            if isinstance(layer, nn.Upsample):
                x = torch.cat((skips.pop(), x), dim=1)
        logits: Tensor = self.head(x)
        return logits

    def levels(self) -> list[list[nn.Module]]:
        """The trunk's layers level by level, from the image down, and up again."""
        levels: list[list[nn.Module]] = [[]]
        for layer in self.model:
            if isinstance(layer, (*_POOLING.values(), nn.Upsample)):
                levels.append([])
            levels[-1].append(layer)
        return levels

    def _convolution(self, before: int, width: int) -> nn.Conv3d:
        bias = self._settings.norm != "batch"
        return nn.Conv3d(before, width, 3, padding="same", bias=bias, padding_mode="reflect")

    def _convolved(self, before: int, width: int) -> tuple[nn.Module, ...]:
        norm = nn.BatchNorm3d if self._settings.norm == "batch" else nn.InstanceNorm3d
        layers = self._convolution(before, width), norm(width, eps=self._settings.norm_eps)
        return (*layers, nn.ReLU(inplace=True))


def anatomix(settings: AnatomixSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the UNet (Dey et al. 2025, arXiv:2411.02372)."""
    network = AnatomixUNet(settings, in_channels, out_channels)
    levels, halvings = network.levels(), settings.halvings
    down, deepest, up = levels[:halvings], levels[halvings], levels[:halvings:-1]
    return Anatomy.of_levels(network, down, deepest, up, network.head, 2**halvings)
