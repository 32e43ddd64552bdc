"""MONAI's SwinUNETR."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn
from torch.overrides import TorchFunctionMode

from hsf_finetune.config.settings import SwinUNETRSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.norms import norm_layer


def swinunetr_arguments(settings: SwinUNETRSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels."""
    return {
        "spatial_dims": 3,
        "feature_size": settings.feature_size,
        "depths": settings.depths,
        "num_heads": settings.num_heads,
        "window_size": settings.window_size,
        "norm_name": norm_layer(settings.norm, [settings.feature_size], settings.norm_groups),
        "drop_rate": settings.dropout,
        "attn_drop_rate": settings.attention_dropout,
        "dropout_path_rate": settings.drop_path,
        "use_checkpoint": settings.use_checkpoint,
        "downsample": settings.downsample,
        "use_v2": settings.use_v2,
    }


def swinunetr(settings: SwinUNETRSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the SwinUNETR (Hatamizadeh et al. 2022, arXiv:2201.01266; V2: He et al. 2023).

    A stage of the transformer belongs to the level at which it attends, with the
    convolutions through which that level's skip connection passes; the patch
    embedding, which takes the image to half its resolution, to the first.
    """
    with _LinspaceOnCPU():
        network = SwinUNETR(
            in_channels=in_channels, out_channels=out_channels, **swinunetr_arguments(settings)
        )
    swin = network.swinViT
    # Each list holds one module, which MONAI calls by its index.
    stages = [[*swin.layers1], [*swin.layers2], [*swin.layers3], [*swin.layers4]]
    if settings.use_v2:
        before = (swin.layers1c, swin.layers2c, swin.layers3c, swin.layers4c)
        stages = [[*first, *stage] for first, stage in zip(before, stages, strict=True)]
    skips: list[list[nn.Module]] = [[network.encoder2], [network.encoder3], [network.encoder4], []]
    down: list[list[nn.Module]] = [
        [swin.patch_embed, swin.pos_drop, network.encoder1],
        *([*stage, *skip] for stage, skip in zip(stages, skips, strict=True)),
    ]
    up = [network.get_submodule(f"decoder{level}") for level in range(1, 6)]
    anatomy = Anatomy.of_levels(network, down, network.encoder10, up, network.out, 32)
    # Self-supervised training makes the transformer alone.
    return replace(anatomy, backbone=swin)


class _LinspaceOnCPU(TorchFunctionMode):
    """Keeps `linspace`, from which MONAI reads numbers, on the CPU when all else is on `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **device | (kwargs or {}))
