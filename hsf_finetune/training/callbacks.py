"""What happens around the steps: averaged weights, stopping, and signs of life."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
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
    """One line per epoch: loss, Dice beside the pretrained model's, time left.

    Within an epoch a terminal shows a bar with the time left in the whole run; where
    there is no terminal, a long epoch says once a minute how far it is.

    Args:
        console: where to print.
        schedule: to announce thaws.
        baseline: mean Dice of the model we start from, if it was scored.
    """

    def __init__(self, console: Console, schedule: Schedule, baseline: float | None) -> None:
        self._console = console
        self._schedule = schedule
        self._baseline = baseline
        self._started = self._said = time.monotonic()
        self._first_epoch = 0
        self._bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock, and the bar on a terminal."""
        self._started = self._said = time.monotonic()
        self._first_epoch = trainer.current_epoch
        if not (self._console.is_terminal and trainer.is_global_zero):
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
        )
        epochs = trainer.max_epochs or 0
        self._bar.add_task(
            "training",
            total=epochs * int(trainer.num_training_batches),
            completed=trainer.current_epoch * int(trainer.num_training_batches),
        )
        self._bar.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Announces blocks that start to train."""
        thawing = [b for b, e in self._schedule.thaw_epoch.items() if e == trainer.current_epoch]
        if thawing and trainer.current_epoch and trainer.is_global_zero:
            self._say(f"epoch {trainer.current_epoch}: {', '.join(thawing)} starts to train")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Moves the bar, or says where a long epoch stands."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
        elif time.monotonic() - self._said > 60 and trainer.is_global_zero:
            steps = f"{batch_idx + 1}/{int(trainer.num_training_batches)} steps"
            self._say(f"epoch {trainer.current_epoch}: {steps}")

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
        parts.append(f"{self._time_left(trainer)} left")
        self._say("  ".join(parts))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the bar away."""
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Takes the bar away before the message."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _time_left(self, trainer: L.Trainer) -> str:
        done = trainer.current_epoch + 1 - self._first_epoch
        per_epoch = (time.monotonic() - self._started) / done
        remaining = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        return str(timedelta(seconds=round(per_epoch * remaining)))

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
        pl_module.log_dict(figures, on_epoch=True, on_step=False, sync_dist=True)
