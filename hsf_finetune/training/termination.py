"""The end of training by a signal."""

from __future__ import annotations

import signal
import threading
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hsf_finetune.system.interruption import end_if_asked, end_with


class EndOnSignal(Callback):
    """Ends training after the step in which Ctrl+C was pressed, and on SIGTERM.

    On the latter, each of several processes ends by itself.
    Lightning's own handler tells the other processes, by a broadcast in the middle of whatever
    these wait for, so that both wait without end. The others find the connection closed instead,
    or see the sign of the process that has ended (`system.processes`).
    """

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces Lightning's handler, which it has just set."""
        self.on_train_start(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces Lightning's handler; the trainer restores the one before its own at the end."""
        if trainer.world_size == 1 or threading.current_thread() is not threading.main_thread():
            return

        def end(number: int, _: Any) -> NoReturn:
            signal.signal(number, signal.SIG_IGN)  # torchrun and SLURM may send it twice
            launcher = trainer.strategy.launcher
            if launcher is not None:
                launcher.kill(number)  # the processes that Lightning has started
            end_with(SIGTERMException("terminated"))

        signal.signal(signal.SIGTERM, end)

    def on_train_batch_end(self, *_: Any) -> None:
        """Ends training if a signal has asked for it."""
        end_if_asked()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Ends training if a signal has asked for it."""
        end_if_asked()
