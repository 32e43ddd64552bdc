"""MONAI's BasicUNet."""

from __future__ import annotations

from typing import Any

from monai.networks.nets.basic_unet import BasicUNet

from hsf_finetune.config.settings import BasicUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.norms import activation_layer, norm_layer


def basicunet_arguments(settings: BasicUNetSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels."""
    return {
        "spatial_dims": 3,
        "features": settings.features,
        "act": activation_layer(settings.act, settings.negative_slope),
        "norm": norm_layer(settings.norm, settings.features, settings.norm_groups),
        "dropout": settings.dropout,
        "upsample": settings.upsample,
    }


def basicunet(settings: BasicUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the BasicUNet (Falk et al. 2019, doi:10.1038/s41592-018-0261-2).

    It accepts other sizes than multiples of 16, and then repeats a border voxel where
    halving lost one; with multiples of 16 it never has to.
    """
    network = BasicUNet(
        in_channels=in_channels, out_channels=out_channels, **basicunet_arguments(settings)
    )
    down = (network.conv_0, network.down_1, network.down_2, network.down_3)
    up = (network.upcat_1, network.upcat_2, network.upcat_3, network.upcat_4)
    return Anatomy.of_levels(network, down, network.down_4, up, network.final_conv, 16)
