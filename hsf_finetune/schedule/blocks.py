"""The blocks of a network as a schedule sees them: names in a known order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from hsf_finetune.schedule.stages import NORMS
from hsf_finetune.system.errors import ConfigError


class NamedBlock(Protocol):
    """A part of a network, as far as a schedule is concerned."""

    @property
    def name(self) -> str:
        """Name of the block."""
        ...


class HasBlocks(Protocol):
    """A network's parts: encoders shallow to deep, decoders deep to shallow."""

    @property
    def encoders(self) -> Sequence[NamedBlock]:
        """Encoder blocks, shallow to deep."""
        ...

    @property
    def bottleneck(self) -> NamedBlock:
        """The deepest block."""
        ...

    @property
    def decoders(self) -> Sequence[NamedBlock]:
        """Decoder blocks, deep to shallow."""
        ...

    @property
    def head(self) -> NamedBlock:
        """The block that makes logits out of features."""
        ...


@dataclass(frozen=True)
class Blocks:
    """Names of a network's blocks.

    Args:
        encoders: from the input inwards.
        bottleneck: the deepest block.
        decoders: from the bottleneck to the head.
        head: the block that makes logits out of features.
    """

    encoders: tuple[str, ...]
    bottleneck: str
    decoders: tuple[str, ...]
    head: str

    @classmethod
    def from_anatomy(cls, anatomy: HasBlocks) -> Blocks:
        """The names of an anatomy's blocks."""
        return cls(
            tuple(block.name for block in anatomy.encoders),
            anatomy.bottleneck.name,
            tuple(block.name for block in anatomy.decoders),
            anatomy.head.name,
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Every block, from the input to the output."""
        return (*self.encoders, self.bottleneck, *self.decoders, self.head)

    @property
    def from_head(self) -> tuple[str, ...]:
        """Every block by its distance from the head, which comes first."""
        return tuple(reversed(self.all))

    @property
    def backbone(self) -> tuple[str, ...]:
        """Encoders and bottleneck."""
        return (*self.encoders, self.bottleneck)

    def named(self, names: Iterable[str], setting: str) -> tuple[str, ...]:
        """The blocks that a user's list means, from the input to the output, `norms` last.

        Args:
            names: blocks, or `encoder`, `decoder`, `backbone`, `all`, `norms`.
            setting: where the names stand, for the message.

        Raises:
            ConfigError: there is no such block.
        """
        groups = {
            "encoder": self.encoders,
            "decoder": self.decoders,
            "backbone": self.backbone,
            "all": self.all,
        }
        found: set[str] = set()
        for name in names:
            if name in groups:
                found.update(groups[name])
            elif name in self.all or name == NORMS:
                found.add(name)
            else:
                known = [*self.all, *groups, NORMS]
                close = get_close_matches(name, known, n=1)
                raise ConfigError(
                    f"{setting}: the network has no block '{name}'",
                    expected=", ".join(known),
                    fix=f"did you mean '{close[0]}'?" if close else None,
                )
        return tuple(block for block in (*self.all, NORMS) if block in found)
