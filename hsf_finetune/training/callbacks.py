"""What happens around the steps: signs of life, and a word of warning."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from hsf_finetune.schedule.display.schedule_table import Sizes
from hsf_finetune.schedule.stages import NORMS
from hsf_finetune.training.module import MONITOR, SegmentationModule


class Heartbeat(Callback):
    """One line per epoch: loss, Dice beside the pretrained model's, time left.

    Within an epoch a terminal shows a bar with the time left in the whole run; where
    there is no terminal, a long epoch says once a minute how far it is.

    Args:
        console: where to print.
        baseline: mean Dice of the model we start from, if it was scored.
    """

    def __init__(self, console: Console, baseline: float | None) -> None:
        self._console = console
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
        assert isinstance(pl_module, SegmentationModule)
        epoch, schedule = trainer.current_epoch, pl_module.schedule
        if not (epoch and trainer.is_global_zero):
            return
        index = schedule.stage_index(epoch)
        if index and epoch == schedule.first_epoch(index):
            new = schedule.stages[index].rates.keys() - schedule.stages[index - 1].rates.keys()
            names = ", ".join(b for b in schedule.unfreeze_epoch if b in new) or "nothing new"
            best = ", from the best weights so far" if schedule.stages[index].carries_best else ""
            self._say(f"epoch {epoch}: stage {index + 1}, {names} starts to train{best}")

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
        # Reading them reduces them over the processes, so that all have to.
        figures = trainer.callback_metrics
        if not trainer.is_global_zero:
            return
        epoch, last = trainer.current_epoch, trainer.max_epochs or 0
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
        sizes: how large the blocks are.
        baseline: mean Dice of the model we start from, if it was scored; drawn as a
            flat line beside the validation curve.
    """

    def __init__(self, sizes: Sizes, baseline: float | None) -> None:
        self._sizes = sizes
        self._baseline = baseline

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs what this epoch trains, at the rate of its first step."""
        assert isinstance(pl_module, SegmentationModule)
        schedule, epoch = pl_module.schedule, trainer.current_epoch
        figures = {"schedule/trainable_share": self._sizes.share(schedule.trainable(epoch))}
        for block in (*schedule.blocks, NORMS):
            if block in schedule.unfreeze_epoch:
                rate = schedule.rate(block, epoch, 0, pl_module.steps_per_epoch)
                figures[f"schedule/lr/{block}"] = rate
        if self._baseline is not None:
            figures[f"{MONITOR}_pretrained"] = self._baseline
        # The other processes need not know them, and have no baseline to log.
        pl_module.log_dict(figures, on_epoch=True, on_step=False, rank_zero_only=True)


class DivergenceGuard(Callback):
    """Warns once if the first epochs lead away from the model that a run starts from.

    The validation loss of the untouched model is taken by the check before training.

    Args:
        console: where to print.
        share: by how much the loss may exceed that of the untouched model.
        epochs: how many epochs are watched.
    """

    def __init__(self, console: Console, share: float, epochs: int = 5) -> None:
        self._console = console
        self._share = share
        self._epochs = epochs
        self._untouched: float | None = None
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"untouched": self._untouched, "warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Picks up where a checkpoint was written."""
        self._untouched, self._warned = state_dict["untouched"], state_dict["warned"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compares the loss with that before training."""
        assert isinstance(pl_module, SegmentationModule)
        loss = pl_module.validation_loss
        if trainer.sanity_checking:
            self._untouched = loss
            return
        if self._warned or loss is None or self._untouched is None:
            return
        if trainer.current_epoch >= self._epochs or loss <= (1 + self._share) * self._untouched:
            return
        self._warned = True
        if trainer.is_global_zero:
            self._console.print(
                f"warning: the validation loss is {loss:.4f} in epoch {trainer.current_epoch}, "
                f"{loss / self._untouched - 1:.0%} above that of the pretrained model "
                f"({self._untouched:.4f}). If it does not come back, stop and take: a lower rate "
                "(models.lr), more epochs with frozen blocks (finetuning.unfreeze_frequency, "
                "finetuning=lpft), or less augmentation (augmentation=light)",
                highlight=False,
                soft_wrap=True,
            )
