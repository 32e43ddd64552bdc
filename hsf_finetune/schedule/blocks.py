"""The blocks of a network as a schedule sees them: names in a known order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from hsf_finetune.schedule.stages import NORMS
from hsf_finetune.system.errors import ConfigError


@dataclass(frozen=True)
class BlockNames:
    """Names of a network's blocks.

    Args:
        encoders: from the input inwards.
        bottleneck: the deepest block.
        decoders: from the bottleneck to the head.
        head: the block that turns features into logits.
    """

    encoders: tuple[str, ...]
    bottleneck: str
    decoders: tuple[str, ...]
    head: str

    @property
    def all(self) -> tuple[str, ...]:
        """Every block, from the input to the output."""
        return (*self.encoders, self.bottleneck, *self.decoders, self.head)

    @property
    def from_head(self) -> tuple[str, ...]:
        """Every block by its distance from the head, which comes first."""
        return tuple(reversed(self.all))

    def select(self, names: Iterable[str], setting: str) -> tuple[str, ...]:
        """The blocks of a user's list, from the input to the output, `norms` last.

        Args:
            names: blocks, or `encoder`, `decoder`, `backbone`, `all`, `norms`.
            setting: that has the list, for the message.

        Raises:
            ConfigError: the network has no such block.
        """
        groups = {
            "encoder": self.encoders,
            "decoder": self.decoders,
            "backbone": (*self.encoders, self.bottleneck),
            "all": self.all,
        }
        selected: set[str] = set()
        for name in names:
            if name in groups:
                selected.update(groups[name])
            elif name in self.all or name == NORMS:
                selected.add(name)
            else:
                known = [*self.all, *groups, NORMS]
                close = get_close_matches(name, known, n=1)
                raise ConfigError(
                    f"{setting}: the network has no block '{name}'",
                    expected=", ".join(known),
                    fix=f"did you mean '{close[0]}'?" if close else None,
                )
        return tuple(block for block in (*self.all, NORMS) if block in selected)
