"""MONAI's UNet without changes, for weights that belong to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from monai.networks.nets.unet import UNet
from torch import nn

from hsf_finetune.config.settings import MonaiUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.norms import activation_layer, norm_layer
from hsf_finetune.networks.layers.strides import divisor, triple


def monai_unet_arguments(settings: MonaiUNetSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels."""
    return {
        "spatial_dims": 3,
        "channels": settings.channels,
        "strides": settings.strides,
        "kernel_size": settings.kernel_size,
        "up_kernel_size": settings.up_kernel_size,
        "num_res_units": settings.num_res_units,
        "act": activation_layer(settings.act, settings.negative_slope),
        "norm": norm_layer(settings.norm, settings.channels),
        "dropout": settings.dropout,
    }


def monai_unet(settings: MonaiUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the UNet (Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40) as MONAI has it.

    Its uppermost decoder, a transposed convolution and what follows, gives the logits.
    This whole block has one channel per class, so it is the head; there is no `decoder1`.
    """
    network = UNet(
        in_channels=in_channels, out_channels=out_channels, **monai_unet_arguments(settings)
    )
    down, deepest, up = unet_levels(network, len(settings.strides))
    head, *decoders = up
    # Of several convolutions in the head, the last is added to the output of the others.
    *_, last = (m for m in head.modules() if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)))
    multiples = divisor([triple(stride) for stride in settings.strides])
    anatomy = Anatomy.of_levels(network, down, deepest, decoders, head, multiples)
    return replace(anatomy, logit_layers=(last,))


def unet_levels(network: UNet, halvings: int) -> tuple[list[nn.Module], nn.Module, list[nn.Module]]:
    """Encoders, bottleneck and decoders of MONAI's UNet, both lists from full resolution.

    Args:
        network: the UNet.
        halvings: number of levels above the bottleneck.
    """
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    level: nn.Module = network.model
    # MONAI nests each level as Sequential(down, SkipConnection(next level), up).
    for _ in range(halvings):
        encoder, skip, decoder = level.children()
        down.append(encoder)
        up.append(decoder)
        level = cast(nn.Module, skip.submodule)
    return down, level, up
