"""Stages and rates that validation decides: plateaus, best weights, and the state for a resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from hsf_finetune.schedule.stages import Schedule, ScheduleHistory
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.training.averaging import AveragedWeights
from hsf_finetune.training.module import MONITOR, SegmentationModule


class StageControl(Callback):
    """Ends stages and lowers rates on a plateau, and starts the next stage as the schedule says.

    Its state (how long validation has not improved, which stages have ended and when rates
    fell) is all that a resumed run needs beside the schedule and the epoch.

    Args:
        schedule: as planned.
        best_file: keeps the best weights of a stage until the next one starts from them;
            removed at the end.
        average: the run's averaged weights, if there are any.
        reset: what a resumed run resets: `optimizer`, `scheduler`, `epoch`.
        longer: whether a resumed run gets more epochs than it had.
    """

    state_key = "Stages"
    """Name of its state in checkpoints, as in version 0.1.0."""

    def __init__(
        self,
        schedule: Schedule,
        best_file: Path,
        average: AveragedWeights | None = None,
        reset: Sequence[str] = (),
        longer: bool = False,
    ) -> None:
        self._schedule = schedule
        self._best_file = best_file
        self._average = average
        self._reset = frozenset(reset)
        self._longer = longer
        self._history = ScheduleHistory()
        self._best: float | None = None
        self._epochs_since_best = 0

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint keeps, in plain types."""
        return {
            "history": asdict(self._history),
            "best": self._best,
            "epochs_since_best": self._epochs_since_best,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state that a checkpoint kept."""
        self._history = ScheduleHistory(**state_dict["history"])
        self._best = state_dict["best"]
        self._epochs_since_best = state_dict["epochs_since_best"]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resets the parts in `reset`, before anything is restored."""
        epoch = int(checkpoint["epoch"]) + 1
        state = dict(checkpoint["callbacks"].get(self.state_key, self.state_dict()))
        history = ScheduleHistory(**state["history"])
        if self._longer:
            # The last stage continues, even if it had ended on a plateau.
            last = len(self._schedule.stages) - 1
            ended = {stage: n for stage, n in history.ended.items() if stage < last}
            history = replace(history, ended=ended)
            state["epochs_since_best"] = 0
        if "optimizer" in self._reset:
            for optimizer in checkpoint["optimizer_states"]:
                optimizer["state"] = {}
        if "scheduler" in self._reset:
            history = replace(history, restart_epoch=epoch, rate_shift_epochs=0)
        if "epoch" in self._reset:
            shift = 0 if "scheduler" in self._reset else epoch + history.rate_shift_epochs
            drops = () if "scheduler" in self._reset else history.drops
            history = ScheduleHistory(rate_shift_epochs=shift, drops=drops)
            state |= {"best": None, "epochs_since_best": 0}
            self._reset_epoch(checkpoint)
        self.load_state_dict(state | {"history": asdict(history)})
        checkpoint["callbacks"][self.state_key] = self.state_dict()
        self._update_schedule(trainer, pl_module)

    def _reset_epoch(self, checkpoint: dict[str, Any]) -> None:
        """Makes training start at epoch 0, with the weights as they are."""
        checkpoint.pop("loops", None)
        checkpoint["epoch"], checkpoint["global_step"] = 0, 0
        if self._average and (state := checkpoint["callbacks"].get(self._average.state_key)):
            state["latest_update_step"] = 0

    def _update_schedule(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gives module and trainer the schedule with the actual length of ended stages."""
        assert isinstance(pl_module, SegmentationModule)
        pl_module.schedule = self._schedule.with_history(self._history)
        trainer.fit_loop.max_epochs = pl_module.schedule.max_epochs

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts the epochs without improvement, and saves the weights that improved."""
        if trainer.sanity_checking or MONITOR not in trainer.callback_metrics:
            return
        dice = float(trainer.callback_metrics[MONITOR])
        if self._best is not None and dice <= self._best:
            self._epochs_since_best += trainer.check_val_every_n_epoch or 1
            return
        self._best, self._epochs_since_best = dice, 0
        assert isinstance(pl_module, SegmentationModule)
        schedule, network = pl_module.schedule, pl_module.network
        following = schedule.stages[schedule.stage_index(trainer.current_epoch) + 1 :]
        if following and following[0].carries_best and trainer.is_global_zero:
            validated = self._average.network_state() if self._average else network.state_dict()
            with atomic_write(self._best_file) as temporary:
                torch.save(validated, temporary)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends the stage if it is over, before the epoch's checkpoint is written."""
        assert isinstance(pl_module, SegmentationModule)
        schedule, epoch = pl_module.schedule, trainer.current_epoch
        index = schedule.stage_index(epoch)
        stage = schedule.stages[index]
        done = epoch + 1 - schedule.first_epoch(index)
        patience = stage.patience_epochs
        on_plateau = patience is not None and self._epochs_since_best >= patience
        if on_plateau and done < stage.epochs:
            ended = {**self._history.ended, index: done}
            self._history = replace(self._history, ended=ended)
            self._update_schedule(trainer, pl_module)
        if (on_plateau or done == stage.epochs) and index + 1 < len(schedule.stages):
            self._start_next_stage(trainer, pl_module)
        elif stage.curve.shape == "plateau":
            self._lower_rates(trainer, pl_module)

    def _lower_rates(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:
        """Lowers the rates from the next epoch on, if neither they nor Dice have changed lately."""
        schedule, history = pl_module.schedule, self._history
        following = trainer.current_epoch + 1 + history.rate_shift_epochs
        since = following - max(history.drops, default=0)
        patience = schedule.stage(trainer.current_epoch).curve.drop_epochs
        if min(self._epochs_since_best, since) >= patience:
            self._history = replace(history, drops=(*history.drops, following))
            self._update_schedule(trainer, pl_module)

    def _start_next_stage(self, trainer: L.Trainer, pl_module: SegmentationModule) -> None:
        stage = pl_module.schedule.stage(trainer.current_epoch + 1)
        if stage.carries_best and self._best is not None:
            # The main process reads them for all.
            trainer.strategy.barrier()
            state: Mapping[str, Tensor] = {}
            if trainer.is_global_zero:
                state = torch.load(self._best_file, map_location="cpu", weights_only=True)
            pl_module.network.load_state_dict(trainer.strategy.broadcast(state, src=0))
            trainer.optimizers[0].state.clear()
            if self._average is not None:
                self._average.restart(pl_module)
        self._best, self._epochs_since_best = None, 0

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes the saved weights of the last stage that others started from."""
        if trainer.is_global_zero:
            self._best_file.unlink(missing_ok=True)
