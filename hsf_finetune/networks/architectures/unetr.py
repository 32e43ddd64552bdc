"""MONAI's UNETR, for images of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import monai.networks.nets.unetr as monai_unetr
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hsf_finetune.config.settings import UNETRSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.norms import norm_layer
from hsf_finetune.networks.layers.strides import triple

_PATCH = 16
"""Voxels along the side of a patch, in every UNETR."""
_SKIPS = (4, 7, 10)
"""Layers of the transformer before each skip connection."""


class PatchEmbedding(nn.Module):
    """Features of patches, and of where they are in the image.

    Args:
        original: MONAI's, whose tensors it takes over.
        grid: how many patches its positions are learned for, along X, Y and Z.
    """

    def __init__(self, original: Any, grid: list[int]) -> None:
        super().__init__()
        self.patch_embeddings: nn.Module = original.patch_embeddings
        self.position_embeddings: nn.Parameter = original.position_embeddings
        self.dropout: nn.Module = original.dropout
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """(B, patches, channels) of images (B, in_channels, X, Y, Z)."""
        features: Tensor = self.patch_embeddings(x)
        positions = self.position_embeddings.transpose(1, 2).unflatten(2, self.grid)
        if list(features.shape[2:]) != self.grid:
            positions = interpolate(positions, features.shape[2:], mode="trilinear")
        tokens: Tensor = self.dropout((features + positions).flatten(2).transpose(1, 2))
        return tokens


class UNETR(monai_unetr.UNETR):
    """MONAI's UNETR, whose positions are interpolated to other sizes than they are learned for.

    Its tensors have MONAI's names; norms that MONAI makes, and does not use, are left out.
    """

    def __init__(self, image_size: tuple[int, int, int], **arguments: Any) -> None:
        super().__init__(img_size=image_size, **arguments)
        grid = [side // _PATCH for side in image_size]
        vit: Any = self.vit
        vit.patch_embedding = PatchEmbedding(vit.patch_embedding, grid)
        for layer in vit.blocks:
            layer.norm_cross_attn = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z)."""
        # MONAI puts tokens back onto a grid of this shape.
        grid = [side // _PATCH for side in x.shape[2:]]
        self.proj_view_shape = [*grid, self.hidden_size]
        logits: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return logits


def unetr_arguments(settings: UNETRSettings) -> dict[str, Any]:
    """The arguments of MONAI's class, apart from its channels and the size of its images."""
    return {
        "spatial_dims": 3,
        "feature_size": settings.feature_size,
        "hidden_size": settings.hidden_size,
        "mlp_dim": settings.mlp_dim,
        "num_heads": settings.num_heads,
        "norm_name": norm_layer(settings.norm, [settings.feature_size], settings.norm_groups),
        "dropout_rate": settings.dropout,
    }


def unetr(settings: UNETRSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the UNETR (Hatamizadeh et al. 2022, arXiv:2103.10504).

    Layers of the transformer belong to the level whose skip connection they lead to, with
    its convolutions; the patch embedding to the first.
    """
    network = UNETR(
        triple(settings.image_size),
        in_channels=in_channels,
        out_channels=out_channels,
        **unetr_arguments(settings),
    )
    vit, layers = network.vit, list(network.vit.blocks)
    starts = (0, *_SKIPS)
    stages = [layers[a:b] for a, b in zip(starts, (*_SKIPS, None), strict=True)]
    skips = (network.encoder2, network.encoder3, network.encoder4)
    down: list[list[nn.Module]] = [[vit.patch_embedding, network.encoder1]]
    down += [[*stage, skip] for stage, skip in zip(stages[:-1], skips, strict=True)]
    up = [network.get_submodule(f"decoder{level}") for level in range(2, 6)]
    deepest = [*stages[-1], vit.norm]
    anatomy = Anatomy.of_levels(network, down, deepest, up, network.out, _PATCH)
    # Self-supervised training makes the transformer alone.
    return replace(anatomy, backbone=vit)
