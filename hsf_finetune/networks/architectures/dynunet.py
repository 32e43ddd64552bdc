"""MONAI's DynUNet, the network of nnU-Net."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet

from hsf_finetune.config.settings import DynUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.norms import norm_layer
from hsf_finetune.networks.layers.strides import divisor, triple


class DynUNet(MonaiDynUNet):
    """MONAI's DynUNet, without dropout of logits and without references to old outputs.

    Its tensors have MONAI's names.
    """

    def get_output_block(self, idx: int) -> UnetOutBlock:
        """The 1x1x1 convolution to logits of a level; MONAI's applies dropout to the logits."""
        return UnetOutBlock(self.spatial_dims, self.filters[idx], self.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (B, in_channels, X, Y, Z).

        Returns:
            (B, out_channels, X, Y, Z); with deep supervision in training
            (B, 1 + deep_supr_num, out_channels, X, Y, Z), finest level first, the coarser
            ones brought to full size by repetition.
        """
        logits: torch.Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        # MONAI keeps the heads' last outputs. They occupy the memory of a whole step, and
        # prevent a copy of the network, which averaged weights need.
        # In place: the levels share this list.
        self.heads[:] = [torch.empty(0)] * len(self.heads)
        return logits


def dynunet_arguments(settings: DynUNetSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels."""
    levels = len(settings.channels)
    strides = [triple(s) for s in settings.strides or [1] + [2] * (levels - 1)]
    return {
        "spatial_dims": 3,
        "kernel_size": [triple(k) for k in settings.kernel_size or [3] * levels],
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": settings.channels,
        "dropout": settings.dropout or None,
        "norm_name": norm_layer(settings.norm, settings.channels, settings.norm_groups),
        "deep_supervision": settings.deep_supervision,
        "deep_supr_num": settings.deep_supr_num,
        "res_block": settings.residual,
        "trans_bias": settings.trans_bias,
    }


def dynunet(settings: DynUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the DynUNet (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    Full resolution on the first level. With deep supervision, the heads of the coarser
    levels belong to the head.
    """
    arguments = dynunet_arguments(settings)
    network = DynUNet(in_channels=in_channels, out_channels=out_channels, **arguments)
    coarser = tuple(network.deep_supervision_heads) if settings.deep_supervision else ()
    down = (network.input_block, *network.downsamples)
    up, head = tuple(network.upsamples)[::-1], (network.output_block, *coarser)
    return Anatomy.of_levels(
        network, down, network.bottleneck, up, head, divisor(arguments["strides"])
    )
