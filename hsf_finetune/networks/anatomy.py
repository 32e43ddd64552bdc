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

from hsf_finetune.networks.layers.switchnorm import SwitchNorm

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, SwitchNorm)
"""What counts as normalisation: batch, instance, group, layer and switchable."""
_SUMMING = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)


def _distinct(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a network that unfreezes, and is transferred, as one.

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

    def norms(self) -> list[nn.Module]:
        """Its normalisation layers that have parameters or statistics."""
        layers = {id(layer): layer for module in self.modules for layer in module.modules()}
        return [
            layer
            for layer in layers.values()
            if isinstance(layer, NORM_LAYERS) and [*layer.parameters(), *layer.buffers()]
        ]

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
    (B, classes, X, Y, Z). With deep supervision it gives, in training mode only,
    (B, levels, classes, X, Y, Z); see `deep_supervision.supervised_outputs`.

    Args:
        network: the whole network.
        encoders: from full resolution to the deepest: `encoder1`, `encoder2`, ...
        bottleneck: the deepest level.
        decoders: from the deepest to full resolution: ..., `decoder2`, `decoder1`,
            numbered like the encoders of the same resolution.
        head: what turns features into logits. Of several modules, the first gives those of
            full resolution, and each further one those of a coarser level.
        divisor: X, Y and Z must be multiples of these (voxels).
        logit_layers: the convolutions whose biases add to the logits one by one; empty
            means every convolution of the head.

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
    logit_layers: tuple[nn.Module, ...] = ()

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

    def logit_biases(self) -> frozenset[str]:
        """Names of the biases that add to the logits: b + c there is a logit + c."""
        layers = self.logit_layers or tuple(
            layer
            for module in self.head.modules
            for layer in module.modules()
            if isinstance(layer, _SUMMING)
        )
        own = {id(layer.bias) for layer in layers if layer.bias is not None}
        return frozenset(n for n, p in self.network.named_parameters() if id(p) in own)

    def coarser_heads(self) -> tuple[frozenset[str], ...]:
        """Names of the tensors of each head that only deep supervision has."""
        state = self.network.state_dict(keep_vars=True)
        owned = [
            {id(t) for t in (*module.parameters(), *module.buffers())}
            for module in self.head.modules[1:]
        ]
        return tuple(frozenset(n for n, t in state.items() if id(t) in own) for own in owned)

    def summed_axes(self) -> dict[str, int]:
        """The axis of each weight over which its layer sums: that of its inputs.

        Returns:
            State dict name -> axis, under every name of the weight.
        """
        axes = {
            id(layer.weight): 0 if isinstance(layer, nn.ConvTranspose3d) else 1
            for layer in self.network.modules()
            if isinstance(layer, _SUMMING)
        }
        state = self.network.state_dict(keep_vars=True)
        return {name: axes[id(t)] for name, t in state.items() if id(t) in axes}

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
