"""The tensors of a network beside those of a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

Axes = Mapping[str, tuple[int, ...]]
"""State dict name -> axes of that tensor."""
MatchedBy = Literal["name", "key_map", "order"]


@dataclass(frozen=True)
class TensorPairs:
    """Which tensor of a checkpoint (the source) belongs to which of a network (the target).

    Names are those of the network, each tensor's first one where it has several.

    Args:
        target: name -> tensor of the network.
        source: name -> tensor of the checkpoint, as far as there is one.
        origins: name -> name in the checkpoint, for those in `source`.
        unused: names of the checkpoint that the network does not know.
        renamed: how the checkpoint's names were changed, in words.
        matched_by: name -> what paired it, where it was not the name.
        hint: what to write for a checkpoint of which too few names match, although all
            tensors agree in order and shape; empty where they do not.
    """

    target: dict[str, torch.Tensor]
    source: dict[str, torch.Tensor]
    origins: dict[str, str]
    unused: tuple[str, ...]
    renamed: str = ""
    matched_by: Mapping[str, MatchedBy] = field(default_factory=dict)
    hint: str = ""

    def source_extent(self, axes: Axes) -> int | None:
        """The extent of the checkpoint's tensors along some axes; None if they disagree."""
        extents = {
            self.source[name].shape[axis]
            for name, own in axes.items()
            for axis in own
            if name in self.source and self.source[name].dim() > axis
        }
        return extents.pop() if len(extents) == 1 else None

    def mismatch(self, name: str, axes: Collection[int] = (), extent: int | None = None) -> str:
        """Why the checkpoint's tensor cannot be used, in words; empty if it can.

        Args:
            name: of the network.
            axes: axes along which the shapes may differ.
            extent: what the checkpoint's tensor should have along these.
        """
        if name not in self.source:
            return "not in the checkpoint"
        source, target = self.source[name].shape, self.target[name].shape
        fits = len(source) == len(target) and all(
            a == extent if axis in axes else a == b
            for axis, (a, b) in enumerate(zip(source, target, strict=True))
        )
        return "" if fits else f"{tuple(source)} in the checkpoint, {tuple(target)} in the network"


def canonical_names(network: nn.Module) -> dict[str, str]:
    """Every name in a network's state dict -> the first name of the same tensor."""
    state = network.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
