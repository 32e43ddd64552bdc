"""A fine-tuning regime as plain arithmetic: stages, and which block trains in them at which rate.

Nothing here knows a network, a GPU or a training loop. What is trainable at an
epoch follows from the schedule and the epoch alone, which is what makes a
resumed run equal an uninterrupted one. A stage that ends on a plateau is written
down with its greatest length; once it has ended, `Schedule.with_history` gives the
schedule as it went.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

NORMS = "norms"
"""Stands, beside the blocks, for the normalisation layers of blocks that are otherwise frozen."""


@dataclass(frozen=True)
class RateCurve:
    """Learning rate over the time for which a block trains without a break.

    The rate rises linearly over the first share `warmup` of the time and falls
    along a cosine to `final` of its peak (Loshchilov and Hutter, 2017); with a `final`
    of 1 it stays at its peak.

    Args:
        warmup: share of the time, in [0, 1].
        final: rate at the end, as a share of the peak.
    """

    warmup: float = 0.1
    final: float = 0.0

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak rate at the `step`-th of `steps` steps (0-based).

        It is positive at every step, so a block's weights change from its first
        step on. From the end on it is `final`.
        """
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        progress = min((step - rising) / max(steps - rising, 1), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Boost:
    """A brief rise of one block's rate at the start of a stage, for a head that is new.

    Args:
        block: which block.
        factor: what its rate is multiplied by.
        epochs: for how long.
    """

    block: str
    factor: float
    epochs: int


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs in which the same blocks train.

    Args:
        rates: block -> peak learning rate, for every block that trains.
        epochs: length, or greatest length if there is a `patience_epochs`.
        patience_epochs: the stage ends once the validation metric has not improved
            for so many epochs; None is a fixed length.
        restarts: the rates of all blocks warm up anew; otherwise blocks that
            already train go on as they are.
        carries_best: it starts from the weights of the best epoch of the stage
            before, as a run of its own would, and not from the last ones.
        curve: how the rates of blocks that start here develop.
        boost: a brief rise of one block's rate.
        augmentation: name of the augmentation preset; None is that of the run.
        augmentation_strength: what the probability of each change is multiplied by.
        ended_after: epochs after which a plateau has ended it.
    """

    rates: Mapping[str, float]
    epochs: int
    patience_epochs: int | None = None
    restarts: bool = False
    carries_best: bool = False
    curve: RateCurve = field(default_factory=RateCurve)
    boost: Boost | None = None
    augmentation: str | None = None
    augmentation_strength: float = 1.0
    ended_after: int | None = None

    @property
    def length(self) -> int:
        """Epochs that it took, or may take."""
        return self.epochs if self.ended_after is None else self.ended_after


@dataclass(frozen=True)
class History:
    """What happened to a schedule while it ran: all that a resumed run has to know.

    Args:
        ended: stage -> epochs after which it ended, for stages that a plateau ended.
        restart_epoch: epoch in which all rates were made to warm up anew.
        rate_shift_epochs: by how much the rates are ahead of the epochs, after the
            epochs alone were counted from 0 again.
    """

    ended: Mapping[int, int] = field(default_factory=dict)
    restart_epoch: int | None = None
    rate_shift_epochs: int = 0


@dataclass(frozen=True)
class Schedule:
    """When each block of a network trains, and at which rate.

    Args:
        regime: the strategy's name, for people.
        blocks: every block's name, from the input to the output.
        stages: what trains, one after the other.
        history: what happened so far, where it differs from the plan.
        remarks: what a user should know about the plan.
    """

    regime: str
    blocks: tuple[str, ...]
    stages: tuple[Stage, ...]
    history: History = field(default_factory=History)
    remarks: tuple[str, ...] = ()

    @property
    def max_epochs(self) -> int:
        """Epochs in all: the most there can be, as long as stages may end earlier."""
        return sum(stage.length for stage in self.stages)

    def first_epoch(self, index: int) -> int:
        """0-based epoch in which a stage starts."""
        return sum(stage.length for stage in self.stages[:index])

    def stage_index(self, epoch: int) -> int:
        """Which stage an epoch belongs to; the last one for epochs after the end."""
        end = 0
        for index, stage in enumerate(self.stages):
            end += stage.length
            if epoch < end:
                return index
        return len(self.stages) - 1

    def stage(self, epoch: int) -> Stage:
        """The stage that an epoch belongs to."""
        return self.stages[self.stage_index(epoch)]

    def trainable(self, epoch: int) -> frozenset[str]:
        """Names of the blocks (and `NORMS`) that train in an epoch."""
        return frozenset(self.stage(epoch).rates)

    def rate(self, block: str, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a block (or `NORMS`); 0 while it is frozen.

        Args:
            block: its name.
            epoch: 0-based.
            step: 0-based optimiser step within the epoch.
            steps_per_epoch: optimiser steps of an epoch.
        """
        index = self.stage_index(epoch)
        stage = self.stages[index]
        if block not in stage.rates:
            return 0.0
        first, last = self._span(block, index)
        curve = self.stages[first].curve
        start = self.first_epoch(first)
        # A stage that a plateau ended had its rates by its greatest length.
        end = self.first_epoch(last) + self.stages[last].epochs
        restart = self.history.restart_epoch
        if restart is not None and start <= restart <= epoch:
            start = restart
        own_step = (epoch + self.history.rate_shift_epochs - start) * steps_per_epoch + step
        own_steps = (end - start) * steps_per_epoch
        rate = stage.rates[block] * curve.factor(own_step, own_steps)
        boost = stage.boost
        if boost and boost.block == block and epoch - self.first_epoch(index) < boost.epochs:
            rate *= boost.factor
        return rate

    def _span(self, block: str, index: int) -> tuple[int, int]:
        """First and last stage of a block's time without a break, around a stage."""
        first = last = index
        while first > 0 and self._goes_on(block, first):
            first -= 1
        while last + 1 < len(self.stages) and self._goes_on(block, last + 1):
            last += 1
        return first, last

    def _goes_on(self, block: str, index: int) -> bool:
        """Whether a block goes on, from the stage before, as if there were no border."""
        here, before = self.stages[index], self.stages[index - 1]
        return not here.restarts and block in here.rates and block in before.rates

    def with_history(self, history: History) -> Schedule:
        """The schedule as it went: stages that ended early have the length they had."""
        stages = tuple(
            replace(stage, ended_after=history.ended.get(index))
            for index, stage in enumerate(self.stages)
        )
        return replace(self, stages=stages, history=history)

    @property
    def unfreeze_epoch(self) -> dict[str, int]:
        """Block -> 0-based epoch in which it first trains, in the order in which they unfreeze."""
        epochs: dict[str, int] = {}
        order = [*reversed(self.blocks), NORMS]
        for index, stage in enumerate(self.stages):
            for block in sorted(stage.rates.keys() - epochs.keys(), key=order.index):
                epochs[block] = self.first_epoch(index)
        return epochs

    @property
    def never_unfrozen(self) -> tuple[str, ...]:
        """Blocks that keep the pretrained weights to the end."""
        return tuple(block for block in self.blocks if block not in self.unfreeze_epoch)

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain types, for JSON."""
        stages = [
            {"first_epoch": self.first_epoch(index)} | asdict(stage)
            for index, stage in enumerate(self.stages)
        ]
        return {
            "regime": self.regime,
            "max_epochs": self.max_epochs,
            "blocks": list(self.blocks),
            "unfreeze_epoch": self.unfreeze_epoch,
            "stages": stages,
            "remarks": list(self.remarks),
        }
