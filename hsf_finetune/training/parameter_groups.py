"""A block's parameters as groups of an optimiser, and their numbers."""

from __future__ import annotations

from typing import Any

from torch import nn

from hsf_finetune.networks.anatomy import Anatomy, Block
from hsf_finetune.schedule.display.schedule_table import BlockSizes

_DECAYING = (nn.Linear, nn.modules.conv._ConvNd)
"""Layers whose weights decay; biases, norms and activations do not."""


def parameter_groups(block: Block) -> list[dict[str, Any]]:
    """Up to three groups of a block: weights that decay, normalisation, and the rest.

    Returns:
        Groups with `params`, `name` (the block's), `norms` (whether they are the
        parameters of normalisation layers) and `weight_decay` (factor 1 or 0).
    """
    layers = [layer for module in block.modules for layer in module.modules()]
    decaying = {id(layer.weight) for layer in layers if isinstance(layer, _DECAYING)}
    norms = {id(p) for layer in block.norms() for p in layer.parameters()}
    parameters = block.parameters()
    groups = [
        ([p for p in parameters if id(p) in decaying], False, 1.0),
        ([p for p in parameters if id(p) in norms], True, 0.0),
        ([p for p in parameters if id(p) not in decaying | norms], False, 0.0),
    ]
    return [
        {"params": params, "weight_decay": decay, "name": block.name, "norms": is_norm}
        for params, is_norm, decay in groups
        if params
    ]


def block_sizes(anatomy: Anatomy) -> BlockSizes:
    """Numbers of parameters of each block and of its normalisation layers."""
    return BlockSizes(
        {block.name: block.size for block in anatomy.blocks},
        {
            block.name: sum(p.numel() for layer in block.norms() for p in layer.parameters())
            for block in anatomy.blocks
        },
    )
