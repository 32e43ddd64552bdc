"""Weights whose outputs are a yes or no each by itself, with an output for the background."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.transfer.match_names import pair_by_name


def with_background(checkpoint: Checkpoint) -> Checkpoint:
    """Weights of sigmoid outputs with one more output, the first: the background, of logit 0.

    Each class then keeps its odds: the softmax of its logit and of 0 is the sigmoid of its logit.
    So a logit above the background's is a yes, and fine-tuning starts from what the weights know.

    Args:
        checkpoint: with its network, its input channels, and the class of each output.
    """
    # Imported late: MONAI imports all of itself.
    from hsf_finetune.networks.build import build_shapes, class_axes

    assert checkpoint.models
    assert checkpoint.in_channels
    assert checkpoint.classes
    settings = validate_network(checkpoint.models)
    if hasattr(settings, "deep_supervision"):
        # So that the heads of coarser levels are known, whether they are trained on or not.
        settings = settings.model_copy(update={"deep_supervision": True})
    size = (checkpoint.in_channels, len(checkpoint.classes))
    pairs = pair_by_name(build_shapes(settings, *size).network, checkpoint.tensors)
    tensors: dict[str, Tensor] = dict(checkpoint.tensors)
    axes = class_axes(settings, *size)
    for name, known in pairs.origins.items():
        for axis in axes.get(name, ()):
            zeros = torch.zeros_like(tensors[known].narrow(axis, 0, 1))
            tensors[known] = torch.cat([zeros, tensors[known]], axis)
    return replace(checkpoint, tensors=tensors, classes=(BACKGROUND, *checkpoint.classes))
