"""Runs that die in the middle of a step, as by a power cut."""

from __future__ import annotations

import multiprocessing
import os
import signal

from torch import Tensor

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.training.module import SegmentationModule


def run_until_killed(settings: Settings, epoch: int) -> None:
    """Runs in a process that SIGKILL ends in the second step of an epoch."""
    process = multiprocessing.get_context("fork").Process(
        target=_execute_and_die, args=(settings, epoch)
    )
    process.start()
    process.join(timeout=600)
    assert process.exitcode == -signal.SIGKILL, process.exitcode


def _execute_and_die(settings: Settings, epoch: int) -> None:
    step = SegmentationModule.training_step

    def fatal_step(self: SegmentationModule, batch: Batch, batch_idx: int) -> Tensor:
        if self.current_epoch == epoch and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, batch_idx)

    SegmentationModule.training_step = fatal_step  # type: ignore[method-assign]
    run_experiment(settings)
