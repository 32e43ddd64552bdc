"""The tensors of a network beside those of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Axes = Mapping[str, tuple[int, ...]]
"""State dict name -> axes of that tensor."""
MatchedBy = Literal["name", "key_map", "order"]

_OTHER_HEAD = re.compile(
    r"(?:^|[._])(?:heads?|fcs?|cls|classifier|classification|proj_head|projector|projection"
    r"|predictor|pred|logits?|seg|aux|rotation|contrastive|reconstruction|prototypes?"
    r"|mask_token|cls_token|queue|cross_attn)(?:[._\d]|$)"
)
"""What other heads than that of segmentation are called, within a network too; and the layers
that MONAI's transformers have and do not use."""


@dataclass(frozen=True)
class Place:
    """Where in a network a tensor that it lacks would belong.

    Args:
        module: the deepest module on the tensor's path that the network has, such as
            `down_layers.3.`; empty where it has none.
        rest: what follows in the name.
        known: names of the network's tensors below that module.
    """

    module: str
    rest: str
    known: frozenset[str] = frozenset()

    def is_within(self, names: Set[str]) -> bool:
        """Whether it belongs beside tensors of these names, and to no other head there."""
        return not (_OTHER_HEAD.search(self.rest) or self.known.isdisjoint(names))


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
        places: where the unused ones would belong, where names were compared.
    """

    target: dict[str, torch.Tensor]
    source: dict[str, torch.Tensor]
    origins: dict[str, str]
    unused: tuple[str, ...]
    renamed: str = ""
    matched_by: Mapping[str, MatchedBy] = field(default_factory=dict)
    hint: str = ""
    places: Mapping[str, Place] = field(default_factory=dict)

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
        source, target = self.source[name], self.target[name]
        fits = source.dim() == target.dim() and all(
            a == extent if axis in axes else a == b
            for axis, (a, b) in enumerate(zip(source.shape, target.shape, strict=True))
        )
        if not fits:
            shapes = tuple(source.shape), tuple(target.shape)
            return f"{shapes[0]} in the checkpoint, {shapes[1]} in the network"
        if is_constant(target) and not target.is_meta and bool((source != target.cpu()).any()):
            return "other values in the checkpoint: a constant of another network"
        return ""


def is_constant(tensor: torch.Tensor) -> bool:
    """Whether a tensor follows from the network's settings: an index, which nothing trains."""
    return not tensor.is_floating_point() and tensor.dim() > 0


def canonical_names(network: nn.Module) -> dict[str, str]:
    """Every name in a network's state dict -> the first name of the same tensor."""
    state = network.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def with_all_names(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under every name that the network has for them; files of graphs keep one of them."""
    first = canonical_names(network)
    given = {first[name]: tensor for name, tensor in tensors.items() if name in first}
    others = {name: given[one] for name, one in first.items() if one in given}
    return {**others, **tensors}
