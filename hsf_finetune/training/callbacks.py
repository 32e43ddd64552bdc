"""What happens around the steps: averaged weights, stopping, and signs of life."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from rich.console import Console
from torch import Tensor

from hsf_finetune.schedule.schedule import Schedule
from hsf_finetune.training.module import MONITOR


class WarmAverage(WeightAveraging):
    """Exponential moving average of the weights, with a decay that warms up.

    After s updates the decay is min(decay, (1 + s) / (10 + s)), so that the average
    does not lag behind in short runs. Validation and checkpoints use it.

    Args:
        decay: largest decay, in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Any, current: Any, updates: Tensor | int) -> None:
            if not averaged[0].is_floating_point():
                torch._foreach_copy_(averaged, current)
                return
            n = int(updates)
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(multi_avg_fn=average)


class StopWhenFlat(EarlyStopping):
    """Early stopping that starts to count once every block has thawed.

    Args:
        patience_epochs: validations without a better Dice.
        first_epoch: epoch of the last thaw.
    """

    def __init__(self, patience_epochs: int, first_epoch: int) -> None:
        super().__init__(monitor=MONITOR, mode="max", patience=patience_epochs)
        self._first_epoch = first_epoch

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts only from the last thaw on."""
        if trainer.current_epoch >= self._first_epoch:
            super().on_validation_end(trainer, pl_module)


class Heartbeat(Callback):
    """One line per epoch: loss, Dice beside the pretrained model's, rate, time left.

    Where there is no terminal it is the only sign of life within an epoch too, once
    a minute.

    Args:
        console: where to print.
        schedule: to announce thaws.
        baseline: mean Dice of the model we start from, if it was scored.
    """

    def __init__(self, console: Console, schedule: Schedule, baseline: float | None) -> None:
        self._console = console
        self._schedule = schedule
        self._baseline = baseline
        self._started = time.monotonic()
        self._first_epoch = 0
        self._said = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._started = self._said = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Announces blocks that start to train."""
        thawing = [b for b, e in self._schedule.thaw_epoch.items() if e == trainer.current_epoch]
        if thawing and trainer.current_epoch and trainer.is_global_zero:
            self._say(f"epoch {trainer.current_epoch}: {', '.join(thawing)} starts to train")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        """Says where a long epoch stands."""
        if not sys.stdout.isatty() and time.monotonic() - self._said > 60:
            done = trainer.fit_loop.epoch_loop.batch_progress.current.completed + 1
            self._say(f"epoch {trainer.current_epoch}: {done}/{trainer.num_training_batches} steps")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The epoch in a line."""
        if not trainer.is_global_zero:
            return
        epoch, last = trainer.current_epoch, trainer.max_epochs or 0
        figures = trainer.callback_metrics
        parts = [f"epoch {epoch:>{len(str(last))}}/{last - 1}"]
        if "train/loss" in figures:
            parts.append(f"loss {float(figures['train/loss']):.4f}")
        if MONITOR in figures:
            beside = f" (pretrained {self._baseline:.4f})" if self._baseline is not None else ""
            parts.append(f"validation Dice {float(figures[MONITOR]):.4f}{beside}")
        parts.append(f"{self._time_left(epoch, last)} left")
        self._say("  ".join(parts))

    def _time_left(self, epoch: int, last: int) -> str:
        per_epoch = (time.monotonic() - self._started) / (epoch + 1 - self._first_epoch)
        return str(timedelta(seconds=round(per_epoch * (last - epoch - 1))))

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._console.print(line, highlight=False)


class ScheduleLogger(Callback):
    """Logs, once per epoch, what trains at which rate, and the pretrained model's Dice.

    Args:
        schedule: of the run.
        parameters: block -> number of parameters.
        baseline: mean Dice of the model we start from, if it was scored; drawn as a
            flat line beside the validation curve.
    """

    def __init__(
        self, schedule: Schedule, parameters: Mapping[str, int], baseline: float | None
    ) -> None:
        self._schedule = schedule
        self._parameters = dict(parameters)
        self._baseline = baseline

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs what this epoch trains."""
        trains = self._schedule.trainable(trainer.current_epoch)
        count = sum(self._parameters[block] for block in trains)
        figures = {"schedule/trainable_share": count / sum(self._parameters.values())}
        for group in trainer.optimizers[0].param_groups:
            figures[f"schedule/lr/{group['name']}"] = float(group["lr"])
        if self._baseline is not None:
            figures[f"{MONITOR}_pretrained"] = self._baseline
        pl_module.log_dict(figures, on_epoch=True, on_step=False)
