"""metrics.csv: one row per epoch, complete after each epoch, continued by a resumed run."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from hsf_finetune.system.atomic_files import write_csv
from hsf_finetune.training.module import SegmentationModule


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of the file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class MetricsCsv(Callback):
    """Writes everything that was logged in an epoch as a row; what was not has empty cells.

    Args:
        path: the file; rows of epochs that are trained again are replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, str]] = []
        self._started = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reads the rows of the epochs before a resume."""
        self._started = time.monotonic()
        if self._path.exists():
            rows = read_metrics(self._path)
            self._rows = [row for row in rows if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds a row and writes the whole file again."""
        assert isinstance(pl_module, SegmentationModule)
        # Reading them is a reduction over all processes.
        figures = pl_module.epoch_figures()
        if not trainer.is_global_zero:
            return
        row = {
            "epoch": str(trainer.current_epoch),
            "step": str(trainer.global_step),
            "seconds": f"{time.monotonic() - self._started:.1f}",
        }
        row |= {k: f"{float(v):.6g}" for k, v in sorted(figures.items())}
        self._rows.append(row)
        header = list(dict.fromkeys(name for r in self._rows for name in r))
        write_csv(self._path, header, [[r.get(name, "") for name in header] for r in self._rows])
