"""MONAI's MedNeXt."""

from __future__ import annotations

from typing import Any

from monai.networks.nets.mednext import MedNeXt as MonaiMedNeXt
from torch import Tensor

from hsf_finetune.config.settings import MedNeXtSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.deep_supervision import stack_levels


class MedNeXt(MonaiMedNeXt):
    """MONAI's MedNeXt, whose levels come as one tensor. Its tensors have MONAI's names."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (B, in_channels, X, Y, Z).

        Returns:
            (B, out_channels, X, Y, Z); with deep supervision in training
            (B, levels, out_channels, X, Y, Z), see `stack_levels`.
        """
        logits = super().forward(x)
        return logits if isinstance(logits, Tensor) else stack_levels(logits)


def mednext_arguments(settings: MedNeXtSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels."""
    return {
        "spatial_dims": 3,
        "init_filters": settings.init_filters,
        "kernel_size": settings.kernel_size,
        "encoder_expansion_ratio": settings.encoder_expansion,
        "bottleneck_expansion_ratio": settings.bottleneck_expansion,
        "decoder_expansion_ratio": settings.decoder_expansion,
        "blocks_down": settings.blocks_down,
        "blocks_bottleneck": settings.blocks_bottleneck,
        "blocks_up": settings.blocks_up,
        "use_residual_connection": settings.residual,
        "global_resp_norm": settings.response_norm,
        "deep_supervision": settings.deep_supervision,
    }


def mednext(settings: MedNeXtSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the MedNeXt (Roy et al. 2023, arXiv:2303.09975).

    A level begins with the block that halves. With deep supervision, the heads of all coarser
    levels, the deepest included, belong to the head.
    """
    network = MedNeXt(
        in_channels=in_channels, out_channels=out_channels, **mednext_arguments(settings)
    )
    levels = [*network.enc_stages, network.bottleneck]
    halving = [network.stem, *network.down_blocks]
    down = [[*pair] for pair in zip(halving, levels, strict=True)]
    up = [[*pair] for pair in zip(network.up_blocks, network.dec_stages, strict=True)][::-1]
    coarser = list(network.out_blocks)[::-1] if settings.deep_supervision else []
    heads = [network.out_0, *coarser]
    return Anatomy.of_levels(network, down[:-1], down[-1], up, heads, 2 ** len(up))
