"""The end of a run of several processes by SIGTERM."""

from __future__ import annotations

import signal
import threading
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException


class EndOnSignal(Callback):
    """Lets each of several processes end by itself on SIGTERM.

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
            raise SIGTERMException("terminated")

        signal.signal(signal.SIGTERM, end)
