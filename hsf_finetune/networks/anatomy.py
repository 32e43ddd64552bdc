"""A network and its named parts.

Freezing, learning rates, weight transfer and reports refer to blocks, never to
patterns in parameter names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.networks.layers.strides import triple
from hsf_finetune.networks.layers.switchnorm import SwitchNorm
from hsf_finetune.schedule.blocks import BlockNames

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, SwitchNorm)
"""Normalisation layers: batch, instance, group, layer and switchable."""
_LINEAR_LAYERS = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)

Part = nn.Module | Sequence[nn.Module]
"""The modules of a block."""


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a network that is unfrozen, and transferred, as a whole.

    A block has the parameters and buffers (such as BatchNorm statistics) of its
    modules, and the training mode of its normalisation and dropout layers.

    Args:
        name: `encoder1`, `bottleneck`, `decoder1`, `head`, ...
        modules: its modules, none inside another.
    """

    name: str
    modules: tuple[nn.Module, ...]

    def parameters(self) -> list[nn.Parameter]:
        """The parameters, each once however many names it has."""
        return list({id(p): p for module in self.modules for p in module.parameters()}.values())

    def buffers(self) -> list[torch.Tensor]:
        """The buffers, each once."""
        return list({id(b): b for module in self.modules for b in module.buffers()}.values())

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
        head: turns features into logits. Of several modules, the first gives those of
            full resolution, and each further one those of a coarser level.
        divisor: X, Y and Z must be multiples of these (voxels).
        logit_layers: the convolutions whose biases are added to the logits; empty
            means every convolution of the head.
        backbone: what weights of an encoder alone have; None is encoders and bottleneck.
        settings: what the network was built from; None for one of other makers.

    Raises:
        ValueError: the blocks do not partition the network's parameters and buffers
            exactly (by identity), or two have the same name.
    """

    network: nn.Module
    encoders: tuple[Block, ...]
    bottleneck: Block
    decoders: tuple[Block, ...]
    head: Block
    divisor: tuple[int, int, int]
    logit_layers: tuple[nn.Module, ...] = ()
    backbone: nn.Module | None = None
    settings: NetworkSettings | None = None

    def __post_init__(self) -> None:
        """Checks that the blocks partition the network."""
        if problems := self._problems():
            raise ValueError("the blocks do not partition the network: " + "; ".join(problems))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Every block, from the input to the output."""
        return (*self.encoders, self.bottleneck, *self.decoders, self.head)

    @property
    def block_names(self) -> BlockNames:
        """The blocks' names, for a schedule."""
        return BlockNames(
            tuple(block.name for block in self.encoders),
            self.bottleneck.name,
            tuple(block.name for block in self.decoders),
            self.head.name,
        )

    def tensor_block(self) -> dict[str, str]:
        """Block name of every name in the state dict: parameters, buffers and aliases."""
        owner = {
            id(tensor): block.name
            for block in self.blocks
            for tensor in (*block.parameters(), *block.buffers())
        }
        state = self.network.state_dict(keep_vars=True)
        return {name: owner[id(tensor)] for name, tensor in state.items()}

    def encoder_names(self) -> frozenset[str]:
        """Names of the tensors that weights of an encoder alone have."""
        blocks = (*self.encoders, self.bottleneck)
        modules = [self.backbone] if self.backbone else [m for b in blocks for m in b.modules]
        own = {id(t) for module in modules for t in (*module.parameters(), *module.buffers())}
        state = self.network.state_dict(keep_vars=True)
        return frozenset(name for name, tensor in state.items() if id(tensor) in own)

    def logit_biases(self) -> frozenset[str]:
        """Names of the biases that are added to the logits: b + c gives logit + c."""
        layers = self.logit_layers or tuple(
            layer
            for module in self.head.modules
            for layer in module.modules()
            if isinstance(layer, _LINEAR_LAYERS)
        )
        biases = {id(layer.bias) for layer in layers if layer.bias is not None}
        return frozenset(n for n, p in self.network.named_parameters() if id(p) in biases)

    def coarser_heads(self) -> tuple[frozenset[str], ...]:
        """Names of the tensors of each head that only deep supervision has."""
        state = self.network.state_dict(keep_vars=True)
        heads = [
            {id(t) for t in (*module.parameters(), *module.buffers())}
            for module in self.head.modules[1:]
        ]
        return tuple(frozenset(n for n, t in state.items() if id(t) in head) for head in heads)

    def summed_axes(self) -> dict[str, int]:
        """The axis of each weight over which its layer sums: that of its inputs.

        Returns:
            State dict name -> axis, under every name of the weight.
        """
        axes = {
            id(layer.weight): 0 if isinstance(layer, nn.ConvTranspose3d) else 1
            for layer in self.network.modules()
            if isinstance(layer, _LINEAR_LAYERS)
        }
        state = self.network.state_dict(keep_vars=True)
        return {name: axes[id(t)] for name, t in state.items() if id(t) in axes}

    @classmethod
    def of_levels(
        cls,
        network: nn.Module,
        encoders: Sequence[Part],
        bottleneck: Part,
        decoders: Sequence[Part],
        head: Part,
        divisor: int | Sequence[int],
    ) -> Anatomy:
        """The anatomy of a network whose encoders and decoders are given from full resolution on.

        Each part is one module or several. Decoders are numbered like the encoders of their
        level, of which the deepest has one.
        """

        def block(name: str, part: Part) -> Block:
            return Block(name, (part,) if isinstance(part, nn.Module) else tuple(part))

        first = 1 + len(encoders) - len(decoders)
        up = [block(f"decoder{n}", part) for n, part in enumerate(decoders, first)]
        return cls(
            network,
            tuple(block(f"encoder{n}", part) for n, part in enumerate(encoders, 1)),
            block("bottleneck", bottleneck),
            tuple(reversed(up)),
            block("head", head),
            triple(divisor),
        )

    def _problems(self) -> list[str]:
        names = Counter(block.name for block in self.blocks)
        problems = [f"two blocks are called '{name}'" for name, n in names.items() if n > 1]
        blocks_of: dict[int, list[str]] = {}
        for block in self.blocks:
            if not block.parameters():
                problems.append(f"'{block.name}' has no parameters")
            for tensor in (*block.parameters(), *block.buffers()):
                blocks_of.setdefault(id(tensor), []).append(block.name)
        for name, tensor in [*self.network.named_parameters(), *self.network.named_buffers()]:
            found = blocks_of.pop(id(tensor), [])
            if not found:
                problems.append(f"'{name}' is in no block")
            elif len(found) > 1:
                problems.append(f"'{name}' is in {' and '.join(found)}")
        problems += [f"'{b[0]}' has a tensor that the network has not" for b in blocks_of.values()]
        return problems
