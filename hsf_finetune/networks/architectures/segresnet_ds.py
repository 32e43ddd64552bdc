"""MONAI's SegResNetDS."""

from __future__ import annotations

from typing import Any, cast

from monai.networks.nets.segresnet_ds import SegResNetDS as MonaiSegResNetDS
from torch import Tensor

from hsf_finetune.config.settings import SegResNetDSSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.deep_supervision import stack_levels
from hsf_finetune.networks.layers.norms import norm_layer


class SegResNetDS(MonaiSegResNetDS):
    """MONAI's SegResNetDS, whose levels come as one tensor. Its tensors have MONAI's names."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (B, in_channels, X, Y, Z).

        Returns:
            (B, out_channels, X, Y, Z); with deep supervision in training
            (B, levels, out_channels, X, Y, Z), see `stack_levels`.
        """
        logits: Any = super().forward(x)
        return stack_levels(logits) if isinstance(logits, list) else cast(Tensor, logits)


def segresnet_ds_arguments(settings: SegResNetDSSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels."""
    return {
        "spatial_dims": 3,
        "init_filters": settings.init_filters,
        "norm": norm_layer(settings.norm, [settings.init_filters], settings.norm_groups),
        "blocks_down": settings.blocks_down,
        "blocks_up": settings.blocks_up,
        "dsdepth": 1 + settings.deep_supr_num if settings.deep_supervision else 1,
        "upsample_mode": settings.upsample,
        "resolution": settings.resolution,
    }


def segresnet_ds(settings: SegResNetDSSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the SegResNetDS (Myronenko 2018, arXiv:1810.11654; of Auto3DSeg).

    A level begins with the convolution that halves. With deep supervision, the heads of the
    coarser levels belong to the head.
    """
    arguments = segresnet_ds_arguments(settings)
    network = SegResNetDS(in_channels=in_channels, out_channels=out_channels, **arguments)
    levels: list[Any] = list(network.encoder.layers)
    halving = [network.encoder.conv_init, *(level["downsample"] for level in levels[:-1])]
    down = [[first, level["blocks"]] for first, level in zip(halving, levels, strict=True)]
    finest_first: list[Any] = list(network.up_layers)[::-1]
    up = [[level["upsample"], level["blocks"]] for level in finest_first]
    heads = [level["head"] for level in finest_first[: arguments["dsdepth"]]]
    divisor = [int(n) for n in network.shape_factor()]  # type: ignore[no-untyped-call]
    return Anatomy.of_levels(network, down[:-1], down[-1], up, heads, divisor)
