"""MONAI's residual UNet as a trunk, with a separate 1x1x1 head."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from monai.networks.nets.unet import UNet as MonaiUNet
from torch import nn

from hsf_finetune.config.settings import UNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.architectures.monai_unet import unet_levels
from hsf_finetune.networks.layers.norms import norm_layer


class UNet(nn.Module):
    """A UNet in which only the last layer depends on the classes.

    MONAI's UNet ends in a whole block with one channel per class, which another number of
    classes would initialise again; this trunk ends in features.
    """

    def __init__(self, settings: UNetSettings, in_channels: int, out_channels: int) -> None:
        """Builds trunk and head.

        Args:
            settings: widths, strides, normalisation and dropout.
            in_channels: channels of the image.
            out_channels: classes, background included.
        """
        super().__init__()
        self.trunk = MonaiUNet(in_channels=in_channels, **trunk_arguments(settings))
        self.head = nn.Conv3d(settings.features, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z)."""
        return cast(torch.Tensor, self.head(self.trunk(x)))


def trunk_arguments(settings: UNetSettings) -> dict[str, Any]:
    """The arguments of MONAI's class for the trunk, apart from the channels of the image."""
    return {
        "spatial_dims": 3,
        "out_channels": settings.features,
        "channels": settings.channels,
        "strides": settings.strides,
        "num_res_units": settings.num_res_units,
        "act": "PRELU",
        "norm": norm_layer(settings.norm, [*settings.channels, settings.features]),
        "dropout": settings.dropout,
    }


def unet(settings: UNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the UNet (Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40)."""
    network = UNet(settings, in_channels, out_channels)
    down, deepest, up = unet_levels(network.trunk, len(settings.strides))
    return Anatomy.of_levels(network, down, deepest, up, network.head, math.prod(settings.strides))
