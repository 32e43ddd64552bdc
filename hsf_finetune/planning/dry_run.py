"""A few real steps on noise, on a copy of the network: what they take in time and memory."""

from __future__ import annotations

import copy
import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, Dataset

from hsf_finetune.config.settings import LoggerSettings
from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.data.preprocessing.resampling import Triple
from hsf_finetune.planning.memory import peak_device_bytes, peak_host_bytes, reset_peaks
from hsf_finetune.training.averaging import AveragedWeights
from hsf_finetune.training.distillation import OldClassesTeacher
from hsf_finetune.training.train import TrainingJob, build_module
from hsf_finetune.training.trainer import checkpoint_callbacks, make_trainer, run_trainer

Clock = Callable[[], float]


@dataclass(frozen=True)
class DryVolumes:
    """What a dry run works on.

    Args:
        batch: volumes (or patches) of a training step.
        patch_vox: their size, a multiple of what the network needs.
        volume_vox: size of the volume that is validated, within the prediction window.
    """

    batch: int
    patch_vox: Triple
    volume_vox: Triple


@dataclass(frozen=True)
class DryRunCost:
    """What a dry run took.

    Args:
        step_s: of a training step, augmentation included; the mean of the timed ones.
        least_step_s: of the fastest of them.
        validation_s: of the one volume that was validated.
        epoch_s: of what comes once an epoch, such as writing checkpoints.
        host_bytes: most memory that the process had.
        device_bytes: most memory that was reserved on a GPU; 0 without one.
    """

    step_s: float
    least_step_s: float
    validation_s: float
    epoch_s: float
    host_bytes: int
    device_bytes: int


def measure_stage(
    job: TrainingJob,
    stage: int,
    volumes: DryVolumes,
    steps: int = 3,
    clock: Clock = time.perf_counter,
) -> DryRunCost:
    """Trains a few steps of a stage and validates once, in the real trainer.

    Neither the network nor the disk nor random numbers show a trace of it.

    Args:
        job: the training, whose network is copied.
        stage: its number in the schedule.
        volumes: what to work on.
        steps: training steps; the first one is not timed.
        clock: seconds, of which differences are taken.
    """
    engine = job.settings.lightning.model_copy(
        update={
            "devices": 1,
            "num_nodes": 1,
            "strategy": "auto",
            "accumulate_grad_batches": 1,
            "check_val_every_n_epoch": 1,
        }
    )
    only = replace(
        job.schedule.stages[stage],
        epochs=1,
        patience_epochs=None,
        carries_best=False,
        ended_after=None,
    )
    schedule = replace(job.schedule, stages=(only,))
    dry = replace(job, anatomy=copy.deepcopy(job.anatomy), schedule=schedule)
    stopwatch = _Stopwatch(clock)
    decay = job.settings.finetuning.ema_decay
    with tempfile.TemporaryDirectory(prefix="hsf_finetune_") as name, torch.random.fork_rng():
        callbacks: list[Callback] = [*checkpoint_callbacks(Path(name) / "checkpoints"), stopwatch]
        if job.old_groups:
            teacher = Path(name) / "teacher.ckpt"
            callbacks.append(OldClassesTeacher(job.old_groups, 1.0, teacher))
        if decay is not None:
            callbacks.append(AveragedWeights(decay))
        trainer = make_trainer(engine, LoggerSettings(name="csv"), Path(name), 1, callbacks)
        module = build_module(dry, steps)
        device = trainer.strategy.root_device
        reset_peaks(device)
        data = _NoiseData(
            _noise_batches(job, volumes.batch, volumes.patch_vox, steps),
            _noise_batches(job, 1, volumes.volume_vox, 1),
        )
        run_trainer(trainer, module, cast(CasesDataModule, data), None)
        cost = stopwatch.cost(peak_host_bytes(), peak_device_bytes(device))
    del trainer, module, data, dry
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return cost


def _noise_batches(job: TrainingJob, size: int, shape: Triple, count: int) -> list[Batch]:
    """Batches of noise in place of images, with labels of every kind."""
    allowed = torch.from_numpy(job.cohort.cases[0].protocol.matrix)
    random = torch.Generator().manual_seed(0)
    return [
        Batch(
            image=torch.randn((size, job.cohort.channels, *shape), generator=random),
            label=torch.randint(len(allowed), (size, *shape), generator=random, dtype=torch.uint8),
            allowed=allowed.expand(size, -1, -1).clone(),
            spacing=torch.ones(size, 3),
            case=["dry run"] * size,
            seed=number,
        )
        for number in range(count)
    ]


class _NoiseData(L.LightningDataModule):
    """Loaders over batches that were made before."""

    def __init__(self, train: list[Batch], validation: list[Batch]) -> None:
        super().__init__()
        # Plain lists would be taken for several loaders.
        self._train, self._validation = (
            DataLoader(cast("Dataset[Batch]", batches), batch_size=None)
            for batches in (train, validation)
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._train

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._validation


@dataclass
class _Stopwatch(Callback):
    """Reads the clock between steps."""

    clock: Clock
    _steps: list[float] = field(default_factory=list)
    _validation: list[float] = field(default_factory=list)
    _end: float = 0.0

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.clock()

    def on_train_batch_end(self, *_: Any) -> None:
        self._steps.append(self._now())

    def on_validation_start(self, *_: Any) -> None:
        self._validation.append(self._now())

    def on_validation_end(self, *_: Any) -> None:
        self._validation.append(self._now())

    def on_train_end(self, *_: Any) -> None:
        self._end = self._now()

    def cost(self, host_bytes: int, device_bytes: int) -> DryRunCost:
        steps = [after - before for before, after in pairwise(self._steps)]
        validation_s = self._validation[1] - self._validation[0]
        epoch_s = max(self._end - self._steps[-1] - validation_s, 0.0)
        return DryRunCost(fmean(steps), min(steps), validation_s, epoch_s, host_bytes, device_bytes)
