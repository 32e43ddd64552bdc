"""Callbacks that report: progress in the terminal, the schedule in the log, divergence."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hsf_finetune.schedule.display.schedule_table import BlockSizes
from hsf_finetune.schedule.stages import NORMS
from hsf_finetune.system.processes import is_main_process
from hsf_finetune.training.module import MONITOR, SegmentationModule
from hsf_finetune.training.training_cost import SHARE


class TrainingProgress(Callback):
    """Prints a line per epoch: loss, Dice beside the pretrained model's, time left.

    Within an epoch a terminal shows a bar with the time left in the whole run; without
    a terminal, a long epoch prints its steps once a minute.

    Args:
        console: where to print.
        baseline: mean Dice of the model that the run starts from, if it was scored.
    """

    def __init__(self, console: Console, baseline: float | None) -> None:
        self._console = console
        self._baseline = baseline
        self._started = self._printed = time.monotonic()
        self._first_epoch = 0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        time_left = (TextColumn("steps,"), TimeRemainingColumn(), TextColumn("left"))
        hidden = not (console.is_terminal and is_main_process())
        self._bar = Progress(*columns, *time_left, console=console, transient=True, disable=hidden)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock, and the bar on a terminal."""
        self._started = self._printed = time.monotonic()
        self._first_epoch = trainer.current_epoch
        steps, epochs = int(trainer.num_training_batches), trainer.max_epochs or 0
        self._bar.add_task("training", total=epochs * steps, completed=self._first_epoch * steps)
        self._bar.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Announces blocks that start to train."""
        assert isinstance(pl_module, SegmentationModule)
        epoch, schedule = trainer.current_epoch, pl_module.schedule
        if not (epoch and trainer.is_global_zero):
            return
        if epoch + schedule.history.rate_shift_epochs in schedule.history.drops:
            factor = schedule.stage(epoch).curve.drop_factor
            self._print(
                f"epoch {epoch}: no better Dice, so that rates fall to {factor:g} of theirs"
            )
        index = schedule.stage_index(epoch)
        if index and epoch == schedule.first_epoch(index):
            new = schedule.stages[index].rates.keys() - schedule.stages[index - 1].rates.keys()
            names = ", ".join(b for b in schedule.unfreeze_epoch if b in new) or "no new block"
            best = ", from the best weights so far" if schedule.stages[index].carries_best else ""
            self._print(f"epoch {epoch}: stage {index + 1} starts to train {names}{best}")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Moves the bar, or prints the steps of a long epoch."""
        self._bar.advance(self._bar.task_ids[0])
        if self._bar.disable and time.monotonic() - self._printed > 60 and trainer.is_global_zero:
            steps = f"{batch_idx + 1}/{int(trainer.num_training_batches)} steps"
            self._print(f"epoch {trainer.current_epoch}: {steps}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the line of the epoch."""
        assert isinstance(pl_module, SegmentationModule)
        # Reading them is a reduction over all processes.
        figures = pl_module.epoch_figures()
        if not trainer.is_global_zero:
            return
        epoch, last = trainer.current_epoch, trainer.max_epochs or 0
        parts = [f"epoch {epoch:>{len(str(last))}}/{last - 1}"]
        if "train/loss" in figures:
            parts.append(f"loss {float(figures['train/loss']):.4f}")
        if MONITOR in figures:
            beside = f" (pretrained {self._baseline:.4f})" if self._baseline is not None else ""
            parts.append(f"validation Dice {float(figures[MONITOR]):.4f}{beside}")
        per_epoch = (time.monotonic() - self._started) / (epoch + 1 - self._first_epoch)
        time_left = timedelta(seconds=round(per_epoch * (last - epoch - 1)))
        self._print("  ".join([*parts, f"{time_left} left"]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes the bar."""
        self._bar.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Removes the bar before the message."""
        self._bar.stop()

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        self._console.print(line, highlight=False)


class ScheduleLogger(Callback):
    """Logs, once per epoch, what trains at which rate, and the pretrained model's Dice.

    Args:
        sizes: of the blocks.
        baseline: mean Dice of the model that the run starts from, if it was scored; a
            flat line beside the validation curve.
    """

    def __init__(self, sizes: BlockSizes, baseline: float | None) -> None:
        self._sizes = sizes
        self._baseline = baseline

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs what this epoch trains, at the rate of its first step."""
        assert isinstance(pl_module, SegmentationModule)
        schedule, epoch = pl_module.schedule, trainer.current_epoch
        figures = {SHARE: self._sizes.trainable_share(schedule.trainable(epoch))}
        for block in (*schedule.blocks, NORMS):
            if block in schedule.unfreeze_epoch:
                rate = schedule.rate(block, epoch, 0, pl_module.steps_per_epoch)
                figures[f"schedule/lr/{block}"] = rate
        if self._baseline is not None:
            figures[f"{MONITOR}_pretrained"] = self._baseline
        # The other processes have no baseline to log.
        pl_module.log_dict(figures, on_epoch=True, on_step=False, rank_zero_only=True)


class DivergenceCheck(Callback):
    """Warns once if the first epochs make the model worse than the one a run starts from.

    The validation loss of that model is computed by the trainer's check before training.

    Args:
        console: where to print.
        share: by how much the loss may exceed that of the model at the start.
    """

    epochs = 5
    """Number of epochs that are checked."""

    state_key = "DivergenceGuard"
    """Name of its state in checkpoints, as in version 0.1.0."""

    def __init__(self, console: Console, share: float) -> None:
        self._console = console
        self._share = share
        self._start_loss: float | None = None
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint keeps."""
        return {"untouched": self._start_loss, "warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state that a checkpoint kept."""
        self._start_loss, self._warned = state_dict["untouched"], state_dict["warned"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compares the loss with that before training."""
        assert isinstance(pl_module, SegmentationModule)
        loss = pl_module.validation_loss
        if trainer.sanity_checking:
            if self._start_loss is None:  # a resumed run has that of the run it continues
                self._start_loss = loss
            return
        if self._warned or loss is None or self._start_loss is None:
            return
        if trainer.current_epoch >= self.epochs or loss <= (1 + self._share) * self._start_loss:
            return
        self._warned = True
        if trainer.is_global_zero:
            self._console.print(
                f"warning: the validation loss is {loss:.4f} in epoch {trainer.current_epoch}, "
                f"{loss / self._start_loss - 1:.0%} above that of the pretrained model "
                f"({self._start_loss:.4f}). If it stays so high, stop and try: a lower rate "
                "(models.lr), more epochs with frozen blocks (finetuning.unfreeze_frequency, "
                "finetuning=lpft), or less augmentation (augmentation=light)",
                highlight=False,
                soft_wrap=True,
            )
