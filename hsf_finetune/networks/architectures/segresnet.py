"""MONAI's SegResNet."""

from __future__ import annotations

from typing import Any

from monai.networks.nets.segresnet import SegResNet
from torch import nn

from hsf_finetune.config.settings import SegResNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.norms import norm_layer


def segresnet_arguments(settings: SegResNetSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels."""
    return {
        "spatial_dims": 3,
        "init_filters": settings.init_filters,
        "dropout_prob": settings.dropout or None,
        "norm": norm_layer(settings.norm, [settings.init_filters], settings.norm_groups),
        "blocks_down": settings.blocks_down,
        "blocks_up": settings.blocks_up,
        "upsample_mode": settings.upsample,
    }


def segresnet(settings: SegResNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the SegResNet without its autoencoder (Myronenko 2018, arXiv:1810.11654).

    The head is the final 1x1x1 convolution alone: the normalisation before it does not
    depend on the classes and belongs to the shallowest decoder.
    """
    network = SegResNet(
        in_channels=in_channels, out_channels=out_channels, **segresnet_arguments(settings)
    )
    *down, deepest = network.down_layers
    norm, activation, logits = network.conv_final
    stem = [network.convInit, network.dropout] if settings.dropout else [network.convInit]
    up: list[list[nn.Module]]
    up = [[*pair] for pair in zip(network.up_samples, network.up_layers, strict=True)][::-1]
    up[0] += [norm, activation]
    encoders = [[*stem, down[0]], *down[1:]]
    return Anatomy.of_levels(network, encoders, deepest, up, logits, 2 ** len(down))
