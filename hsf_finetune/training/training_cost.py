"""What training costs: processor or GPU seconds of each epoch, and how much of the network trains.

The figures are columns of metrics.csv, so that those of a resumed run are the sum over all
of its epochs, whichever process trained them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from hsf_finetune.training.metrics_file import read_metrics

SHARE = "schedule/trainable_share"
"""Column of metrics.csv: share of all parameters that trained in the epoch."""


class CostRecorder(Callback):
    """Logs the seconds of each epoch, those of training and validation separately.

    On a CPU it is the process's processor time (`time.process_time`: all of its threads,
    but no loader processes), which other programs on the machine do not change. On a GPU
    it is the elapsed time between two synchronisations. With several processes it is the
    time of the first one times their number. Reading and augmenting count as
    training; checkpoints, and scoring before and after the run, do not count.
    """

    def __init__(self) -> None:
        self._counted_until: float | None = None
        self._seconds = {"train": 0.0, "validation": 0.0}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._seconds = {"train": 0.0, "validation": 0.0}
        self._counted_until = _now(pl_module.device)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts the time since the start or the last validation as training."""
        self._count("train", pl_module.device)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts the time of a validation."""
        self._count("validation", pl_module.device)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the seconds of the epoch."""
        self._count("train", pl_module.device)
        self._counted_until = None
        clock = "cpu" if pl_module.device.type == "cpu" else "gpu"
        figures = {
            f"cost/{what}_{clock}_s": seconds * trainer.world_size
            for what, seconds in self._seconds.items()
        }
        pl_module.log_dict(figures, on_epoch=True, on_step=False, rank_zero_only=True)

    def _count(self, what: str, device: torch.device) -> None:
        # The validation before the first epoch belongs to no epoch.
        if self._counted_until is not None:
            now = _now(device)
            self._seconds[what] += now - self._counted_until
            self._counted_until = now


@dataclass(frozen=True)
class TrainingCost:
    """The cost of the training of a run.

    Args:
        epochs: number of epochs trained.
        steps: optimiser steps.
        cpu_seconds: processor time of training alone; NaN on a GPU, or if unknown.
        gpu_seconds: GPU time of training alone; NaN on a CPU, or if unknown.
        validation_seconds: of validation between epochs, on the same device; NaN if unknown.
        peak_share: largest share of the parameters that trained in an epoch; NaN if unknown.
        mean_share: mean of this share over the epochs; NaN if unknown.
    """

    epochs: int
    steps: int
    cpu_seconds: float
    gpu_seconds: float
    validation_seconds: float
    peak_share: float
    mean_share: float


def read_cost(folder: Path) -> TrainingCost:
    """The cost of a run so far, or of all runs that it consists of.

    Epochs that a reset counted from 0 again are in files of their own and count as well;
    an epoch that was interrupted and trained again counts once.

    Args:
        folder: of the run.
    """
    names = ("metrics*.csv", *(f"{p}/metrics*.csv" for p in ("teacher", "student_*", "final")))
    globs = [*names, *(f"{fold}/{name}" for fold in ("fold_*", "final") for name in names)]
    paths = [path for glob in dict.fromkeys(globs) for path in sorted(folder.glob(glob))]
    parts = [read_metrics(path) for path in paths]
    rows = [row for part in parts for row in part]
    shares = [float(row[SHARE]) for row in rows if row.get(SHARE)]
    return TrainingCost(
        epochs=len(rows),
        steps=sum(int(part[-1]["step"]) for part in parts if part),
        cpu_seconds=_total(rows, ["cost/train_cpu_s"]),
        gpu_seconds=_total(rows, ["cost/train_gpu_s"]),
        validation_seconds=_total(rows, ["cost/validation_cpu_s", "cost/validation_gpu_s"]),
        peak_share=max(shares, default=math.nan),
        mean_share=sum(shares) / len(shares) if shares else math.nan,
    )


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _total(rows: Iterable[Mapping[str, str]], columns: Sequence[str]) -> float:
    """Sum of the cells that are filled; NaN if none is."""
    cells = [float(row[name]) for row in rows for name in columns if row.get(name)]
    return sum(cells) if cells else math.nan
