"""A network and its named parts.

Freezing, learning rates, weight transfer and reports speak of blocks, never of
patterns in parameter names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


def _distinct(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a network that thaws, and is transferred, as one.

    A block owns the parameters and buffers (such as BatchNorm statistics) of its
    modules, and the training mode of its normalisation and dropout layers.

    Args:
        name: `encoder1`, `bottleneck`, `decoder1`, `head`, ...
        modules: its modules, none inside another.
    """

    name: str
    modules: tuple[nn.Module, ...]

    def parameters(self) -> list[nn.Parameter]:
        """The parameters, each once however many names it has."""
        found = _distinct(p for module in self.modules for p in module.parameters())
        return [p for p in found if isinstance(p, nn.Parameter)]

    def buffers(self) -> list[torch.Tensor]:
        """The buffers, each once."""
        return _distinct(b for module in self.modules for b in module.buffers())

    def train(self, mode: bool = True) -> None:
        """Puts every layer of the block into training (or evaluation) mode."""
        for module in self.modules:
            module.train(mode)

    @property
    def size(self) -> int:
        """Number of parameters (scalars)."""
        return sum(p.numel() for p in self.parameters())


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A segmentation network whose blocks partition its parameters and buffers.

    `network` maps images of shape (B, C, X, Y, Z) to logits of shape
    (B, classes, X, Y, Z), in training and evaluation mode alike.

    Args:
        network: the whole network.
        encoders: from full resolution to the deepest: `encoder1`, `encoder2`, ...
        bottleneck: the deepest level.
        decoders: from the deepest to full resolution: ..., `decoder2`, `decoder1`,
            numbered like the encoders of the same resolution.
        head: what turns features into logits.
        divisor: X, Y and Z must be multiples of these (voxels).

    Raises:
        ValueError: the blocks do not partition the network's parameters and buffers
            exactly (by identity), or two share a name: the description is wrong.
    """

    network: nn.Module
    encoders: tuple[Block, ...]
    bottleneck: Block
    decoders: tuple[Block, ...]
    head: Block
    divisor: tuple[int, int, int]

    def __post_init__(self) -> None:
        """Checks that the blocks partition the network."""
        if problems := self._problems():
            raise ValueError("the blocks do not partition the network: " + "; ".join(problems))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Every block, from the input to the output."""
        return (*self.encoders, self.bottleneck, *self.decoders, self.head)

    def block(self, name: str) -> Block:
        """The block of that name.

        Raises:
            KeyError: there is none.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        raise KeyError(name)

    def tensor_block(self) -> dict[str, str]:
        """Block name of every name in the state dict: parameters, buffers and aliases."""
        owner = self._owners()
        state = self.network.state_dict(keep_vars=True)
        return {name: owner[id(tensor)] for name, tensor in state.items()}

    def _owners(self) -> dict[int, str]:
        return {
            id(tensor): block.name
            for block in self.blocks
            for tensor in (*block.parameters(), *block.buffers())
        }

    def _problems(self) -> list[str]:
        names = Counter(block.name for block in self.blocks)
        problems = [f"two blocks are called '{name}'" for name, n in names.items() if n > 1]
        claims: dict[int, list[str]] = {}
        for block in self.blocks:
            if not block.parameters():
                problems.append(f"'{block.name}' has no parameters")
            for tensor in (*block.parameters(), *block.buffers()):
                claims.setdefault(id(tensor), []).append(block.name)
        everything = [*self.network.named_parameters(), *self.network.named_buffers()]
        for name, tensor in everything:
            owners = claims.pop(id(tensor), [])
            if not owners:
                problems.append(f"'{name}' is in no block")
            elif len(owners) > 1:
                problems.append(f"'{name}' is in {' and '.join(owners)}")
        problems += [f"'{owners[0]}' holds a tensor from elsewhere" for owners in claims.values()]
        return problems
