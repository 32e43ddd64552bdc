"""A fine-tuning strategy as plain arithmetic: stages, and the learning rate of each block in them.

This module depends neither on networks nor on training. What is trainable at an epoch follows
from the schedule and the epoch alone, so that a resumed run equals an uninterrupted one.
A stage that ends on a plateau has its greatest length; once it has ended,
`Schedule.with_history` gives the schedule with its actual length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

NORMS = "norms"
"""Name, beside those of the blocks, for the normalisation layers of blocks that are frozen."""


@dataclass(frozen=True)
class RateCurve:
    """Learning rate over the time for which a block trains without interruption.

    The rate rises linearly and then falls, to no less than `final` of its peak; with a
    `final` of 1 it stays there. Its fall, over the time after the warm-up, is

    - cosine: half a period of one (Loshchilov and Hutter, 2017);
    - poly: (1 - share of the time) ** power (Chen et al., "DeepLab", 2018; nnU-Net's is 0.9);
    - step: times `drop_factor` every `drop_epochs`, as PyTorch's StepLR;
    - plateau: times `drop_factor` once validation has not improved for `drop_epochs`, as
      PyTorch's ReduceLROnPlateau.

    Args:
        warmup: share of the time in which the rate rises, in [0, 1].
        final: lowest rate, as a share of the peak.
        shape: of the fall, one of the above.
        power: of poly.
        drop_epochs: of step and plateau.
        drop_factor: of step and plateau.
        warmup_epochs: how long the rate rises, in place of the share.
    """

    warmup: float = 0.1
    final: float = 0.0
    shape: str = "cosine"
    power: float = 0.9
    drop_epochs: int = 10
    drop_factor: float = 0.1
    warmup_epochs: int | None = None

    def factor(self, step: int, steps: int, steps_per_epoch: int = 1, drops: int = 0) -> float:
        """Share of the peak rate at the `step`-th of `steps` steps (0-based).

        It is positive at every step, so a block's weights change from its first
        step on. From the end on a cosine and a polynomial are `final`.

        Args:
            step: of the time for which the block trains.
            steps: all of that time.
            steps_per_epoch: optimiser steps of an epoch.
            drops: how often a plateau has lowered the rate so far.
        """
        rising = math.ceil(self.warmup * steps)
        if self.warmup_epochs is not None:
            rising = self.warmup_epochs * steps_per_epoch
        if step < rising:
            return (step + 1) / (rising + 1)
        if self.shape == "step":
            drops = (step - rising) // (self.drop_epochs * steps_per_epoch)
        if self.shape in ("step", "plateau"):
            return max(self.final, math.pow(self.drop_factor, drops))
        progress = min((step - rising) / max(steps - rising, 1), 1.0)
        if self.shape == "poly":
            return self.final + (1 - self.final) * math.pow(1 - progress, self.power)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class RateBoost:
    """A higher rate of one block in the first epochs of a stage, for a head that is new.

    Args:
        block: its name.
        factor: by which its rate is multiplied.
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
            for this many epochs; None is a fixed length.
        restarts: whether the rates of all blocks warm up again; otherwise those of blocks
            that already train continue.
        carries_best: whether it starts from the weights of the best epoch of the stage
            before, as a run of its own would, instead of the last ones.
        curve: of the rates of blocks that start to train in this stage.
        boost: a higher rate of one block in the first epochs.
        augmentation: name of the augmentation preset; None is that of the run.
        augmentation_strength: factor of the probability of each random change.
        ended_after: epochs after which a plateau has ended it.
    """

    rates: Mapping[str, float]
    epochs: int
    patience_epochs: int | None = None
    restarts: bool = False
    carries_best: bool = False
    curve: RateCurve = field(default_factory=RateCurve)
    boost: RateBoost | None = None
    augmentation: str | None = None
    augmentation_strength: float = 1.0
    ended_after: int | None = None

    @property
    def length(self) -> int:
        """Epochs that it took, or takes at most."""
        return self.epochs if self.ended_after is None else self.ended_after


@dataclass(frozen=True)
class ScheduleHistory:
    """How a run has differed from its schedule so far; a resumed run needs it.

    Args:
        ended: stage -> epochs after which it ended, for stages that a plateau ended.
        restart_epoch: epoch in which a reset made all rates warm up again.
        rate_shift_epochs: by how much the rates are ahead of the epochs, after a reset
            of the epochs alone.
        drops: epochs, counted as the rates are, from which a plateau lowered them.
    """

    ended: Mapping[int, int] = field(default_factory=dict)
    restart_epoch: int | None = None
    rate_shift_epochs: int = 0
    drops: Sequence[int] = ()


@dataclass(frozen=True)
class Schedule:
    """When each block of a network trains, and at which rate.

    Args:
        strategy: its name, as the user writes it.
        blocks: every block's name, from the input to the output.
        stages: one after the other.
        history: how the run has differed from the plan so far.
        remarks: what a user should know about the plan.
    """

    strategy: str
    blocks: tuple[str, ...]
    stages: tuple[Stage, ...]
    history: ScheduleHistory = field(default_factory=ScheduleHistory)
    remarks: tuple[str, ...] = ()

    @property
    def max_epochs(self) -> int:
        """Epochs of all stages; the most there can be while plateaus may end stages."""
        return sum(stage.length for stage in self.stages)

    def first_epoch(self, index: int) -> int:
        """0-based epoch in which a stage starts."""
        return sum(stage.length for stage in self.stages[:index])

    def stage_index(self, epoch: int) -> int:
        """Index of the stage that an epoch belongs to; the last one for epochs after the end."""
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
        first, last = self._uninterrupted_stages(block, index)
        curve = self.stages[first].curve
        start = self.first_epoch(first)
        # A stage that a plateau ended had its rates by its greatest length.
        end = self.first_epoch(last) + self.stages[last].epochs
        restart = self.history.restart_epoch
        if restart is not None and start <= restart <= epoch:
            start = restart
        now = epoch + self.history.rate_shift_epochs
        drops = sum(start <= drop <= now for drop in self.history.drops)
        rate = stage.rates[block] * curve.factor(
            (now - start) * steps_per_epoch + step,
            (end - start) * steps_per_epoch,
            steps_per_epoch,
            drops,
        )
        boost = stage.boost
        if boost and boost.block == block and epoch - self.first_epoch(index) < boost.epochs:
            rate *= boost.factor
        return rate

    def _uninterrupted_stages(self, block: str, index: int) -> tuple[int, int]:
        """First and last stage of the time, around a stage, in which a block keeps training."""
        first = last = index
        while first > 0 and self._continues(block, first):
            first -= 1
        while last + 1 < len(self.stages) and self._continues(block, last + 1):
            last += 1
        return first, last

    def _continues(self, block: str, index: int) -> bool:
        """Whether a block continues in a stage with the rate curve of the stage before."""
        stage, before = self.stages[index], self.stages[index - 1]
        return not stage.restarts and block in stage.rates and block in before.rates

    def with_history(self, history: ScheduleHistory) -> Schedule:
        """The schedule in which stages that ended early have their actual length."""
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
            "regime": self.strategy,
            "max_epochs": self.max_epochs,
            "blocks": list(self.blocks),
            "unfreeze_epoch": self.unfreeze_epoch,
            "stages": stages,
            "remarks": list(self.remarks),
        }
