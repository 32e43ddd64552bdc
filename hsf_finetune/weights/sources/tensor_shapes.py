"""The tensors of a checkpoint, as the settings of a network follow from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hsf_finetune.weights.transfer.match_names import plain_name

_ALIASES = (
    (re.compile(r"(^|\.)decoder\.encoder\."), r"\1encoder."),
    (re.compile(r"\.all_modules\.0\."), ".conv."),
    (re.compile(r"\.all_modules\.1\."), ".norm."),
)
"""Second names of nnU-Net's tensors, of which safetensors keeps only one."""


class TensorShapes:
    """The tensors of a checkpoint below a prefix, as the settings of a network follow from them."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], prefix: str = "") -> None:
        named = {first_name(name): tensor for name, tensor in tensors.items()}
        size = len(prefix)
        self.tensors = {name[size:]: t for name, t in named.items() if name.startswith(prefix)}
        self.assumed: list[str] = []
        """Settings that neither names nor shapes tell."""

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def width(self, layer: str) -> int:
        """Output channels of a convolution."""
        return self.tensors[f"{layer}.weight"].shape[0]

    def kernel(self, layer: str) -> int | list[int]:
        """The kernel of a convolution: a number where it is a cube."""
        sides = list(self.tensors[f"{layer}.weight"].shape[2:])
        return sides[0] if len(set(sides)) == 1 else sides

    def count(self, layer: str, first: int = 0) -> int:
        """How many layers are called so, with consecutive numbers in place of `{}`."""
        number = first
        while f"{layer.format(number)}.weight" in self:
            number += 1
        return number - first

    def norm(self, layer: str, affine: str) -> str:
        """The normalisation; of those that learn a gain only batch's shows, else it is `affine`."""
        if f"{layer}.running_mean" in self:
            return "batch"
        self.assumed.append("norm")
        return affine if f"{layer}.weight" in self else "instance_plain"

    def activation(self, layer: str, other: str) -> str:
        """The non-linearity; only a PReLU's shows, else it is `other`."""
        if f"{layer}.weight" in self:
            return "prelu"
        self.assumed.append("act")
        return other

    def upsampling(self, begin: str) -> str:
        """How MONAI's upsampling layers, whose names begin so, double the size."""
        names = [name for name in self.tensors if name.startswith(begin)]
        kinds = ("deconv", "pixelshuffle")
        return next((k for k in kinds if any(f".{k}." in n for n in names)), "nontrainable")


@dataclass(frozen=True)
class ShapeReader:
    """How one network is recognised and read.

    Args:
        stems: names that its first convolution may have.
        heads: names that its convolution to logits may have.
        read: its settings, from the tensors below its prefix; KeyError where one is missing.
    """

    stems: tuple[str, ...]
    heads: tuple[str, ...]
    read: Callable[[TensorShapes], dict[str, Any]]


def first_name(name: str) -> str:
    """The first of the names under which a network has a tensor, without wrappers' names."""
    name = plain_name(name)
    for pattern, known in _ALIASES:
        name = pattern.sub(known, name)
    return name
