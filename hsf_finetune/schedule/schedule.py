"""A fine-tuning regime as plain arithmetic: which block trains when, and at which rate.

Nothing here knows a network, a GPU or a training loop. What is trainable at an
epoch follows from the schedule and the epoch alone, which is what makes a
resumed run equal an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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
class RateCurve:
    """Learning rate of a block over its own training time.

    The rate rises linearly over the first share `warmup` of the time and falls
    along a cosine to `final` of its peak (Loshchilov and Hutter, 2017). Every
    block runs on its own clock, from its thaw to the end, so one that thaws
    late starts from a small rate too, and not from the tail of a cosine.

    Args:
        warmup: share of the block's training time, in [0, 1].
        final: rate at the end, as a share of the peak.
    """

    warmup: float = 0.1
    final: float = 0.0

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak rate at the `step`-th of a block's `steps` steps (0-based).

        It is positive at every step, so a block's weights change from its first
        step on.
        """
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        progress = (step - rising) / max(steps - rising, 1)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs in which the same blocks train.

    Args:
        first_epoch: 0-based.
        end_epoch: the epoch after the last one.
        trains: names of the blocks that train, those that just thawed last.
        thaws: those of them that did not train before.
    """

    first_epoch: int
    end_epoch: int
    trains: tuple[str, ...]
    thaws: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """When each block of a network starts to train, and at which peak rate.

    Args:
        blocks: every block's name, from the input to the output.
        thaw_epoch: block -> 0-based epoch in which it starts to train; blocks
            that are not listed never do.
        peak_rate: block -> highest learning rate, for every block that trains.
        max_epochs: epochs in all.
        curve: how a rate develops between thaw and end.
        regime: the strategy's name, for people.
    """

    blocks: tuple[str, ...]
    thaw_epoch: Mapping[str, int]
    peak_rate: Mapping[str, float]
    max_epochs: int
    curve: RateCurve
    regime: str

    def trainable(self, epoch: int) -> frozenset[str]:
        """Names of the blocks that train in an epoch."""
        return frozenset(b for b, start in self.thaw_epoch.items() if start <= epoch)

    def rate(self, block: str, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a block at a global step; 0 while it is frozen."""
        start = self.thaw_epoch.get(block)
        if start is None or step < start * steps_per_epoch:
            return 0.0
        own_steps = (self.max_epochs - start) * steps_per_epoch
        own_step = min(step - start * steps_per_epoch, own_steps)
        return self.peak_rate[block] * self.curve.factor(own_step, own_steps)

    @property
    def last_thaw(self) -> int:
        """Epoch in which the last block that trains at all starts to."""
        return max((e for e in self.thaw_epoch.values() if e < self.max_epochs), default=0)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The epochs, cut wherever a block thaws."""
        starts = sorted({e for e in self.thaw_epoch.values() if e < self.max_epochs} | {0})
        ends = [*starts[1:], self.max_epochs]
        order = sorted(self.thaw_epoch, key=lambda b: (self.thaw_epoch[b], -self.blocks.index(b)))
        return tuple(
            Stage(
                first,
                end,
                tuple(b for b in order if self.thaw_epoch[b] <= first),
                tuple(b for b in order if self.thaw_epoch[b] == first),
            )
            for first, end in zip(starts, ends, strict=True)
        )

    @property
    def never_thawed(self) -> tuple[str, ...]:
        """Blocks that keep the pretrained weights to the end."""
        return tuple(
            b for b in self.blocks if self.thaw_epoch.get(b, self.max_epochs) >= self.max_epochs
        )

    def plain(self) -> dict[str, Any]:
        """The schedule as plain types, for JSON and checkpoints."""
        return {
            "regime": self.regime,
            "max_epochs": self.max_epochs,
            "blocks": list(self.blocks),
            "thaw_epoch": dict(self.thaw_epoch),
            "peak_rate": dict(self.peak_rate),
            "warmup": self.curve.warmup,
            "final": self.curve.final,
        }
