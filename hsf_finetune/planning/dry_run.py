"""A few real steps on made-up volumes, on a copy of the network: what they take in time and memory."""

from __future__ import annotations

import copy
import gc
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import lightning as L
import psutil
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, Dataset

from hsf_finetune.config.settings import LoggerSettings, Settings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.loading.datamodule import Batch, CasesDataModule
from hsf_finetune.inference.predictor import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.training.averaging import WarmAverage
from hsf_finetune.training.train import build_module
from hsf_finetune.training.trainer import checkpoint_callbacks, fit, make_trainer

Triple = tuple[int, int, int]
Clock = Callable[[], float]

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Load:
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
class Cost:
    """What a dry run took.

    Args:
        step_s: of a training step, augmentation included.
        validation_s: of the one volume that was validated.
        epoch_s: of what comes once an epoch, such as writing checkpoints.
        host_bytes: most memory that the process had.
        device_bytes: most memory that was reserved on a GPU; 0 without one.
    """

    step_s: float
    validation_s: float
    epoch_s: float
    host_bytes: int
    device_bytes: int


@dataclass(frozen=True)
class DryRun:
    """Runs steps of a stage without leaving a trace: neither in the network nor on disk.

    Args:
        settings: of the run.
        cohort: the cases, for their classes and channels.
        anatomy: the network, which is copied.
        schedule: which block trains when.
        card: of the network.
        clock: seconds, of which differences are taken.
    """

    settings: Settings
    cohort: Cohort
    anatomy: Anatomy
    schedule: Schedule
    card: ModelCard
    clock: Clock = time.perf_counter

    def measure(self, stage: int, load: Load, steps: int = 3) -> Cost:
        """Trains a few steps of a stage and validates once, in the real trainer.

        Args:
            stage: number of the stage.
            load: what on.
            steps: training steps; the first one is not timed.
        """
        engine = self.settings.lightning.model_copy(
            update={
                "devices": 1,
                "num_nodes": 1,
                "strategy": "auto",
                "accumulate_grad_batches": 1,
                "check_val_every_n_epoch": 1,
            }
        )
        only = replace(
            self.schedule.stages[stage], epochs=1, patience_epochs=None, carries_best=False
        )
        schedule = replace(self.schedule, stages=(replace(only, ended_after=None),))
        probe = _Probe(self.clock)
        decay = self.settings.finetuning.ema_decay
        with (
            tempfile.TemporaryDirectory(prefix="hsf_finetune_") as folder,
            torch.random.fork_rng(),
            _Watch() as watch,
        ):
            around: list[Callback] = [*checkpoint_callbacks(Path(folder) / "checkpoints"), probe]
            if decay is not None:
                around.append(WarmAverage(decay))
            logger = LoggerSettings(name="csv")
            trainer = make_trainer(engine, logger, Path(folder), 1, around)
            module = build_module(
                self.settings, self.cohort, copy.deepcopy(self.anatomy), schedule, steps, self.card
            )
            watch.start(trainer.strategy.root_device)
            data = _MadeUp(
                self._batches(load.batch, load.patch_vox, steps),
                self._batches(1, load.volume_vox, 1),
            )
            fit(trainer, module, cast(CasesDataModule, data), None)
            host, device = watch.host(), watch.reserved()
        del trainer, module, data
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return Cost(probe.step_s, probe.validation_s, probe.epoch_s, host, device)

    def _batches(self, size: int, shape: Triple, count: int) -> list[Batch]:
        """Batches of noise in place of images, with labels of every kind."""
        protocol = self.cohort.cases[0].protocol
        allowed = torch.from_numpy(protocol.matrix)
        random = torch.Generator().manual_seed(0)
        return [
            Batch(
                image=torch.randn((size, self.cohort.channels, *shape), generator=random),
                label=torch.randint(
                    len(allowed), (size, *shape), generator=random, dtype=torch.uint8
                ),
                allowed=allowed.expand(size, -1, -1).clone(),
                spacing=torch.ones(size, 3),
                case=["dry run"] * size,
                seed=number,
            )
            for number in range(count)
        ]


# -------------------------------------------------------------------- internals
class _MadeUp(L.LightningDataModule):
    """Batches that are there already."""

    def __init__(self, train: Sequence[Batch], validation: Sequence[Batch]) -> None:
        super().__init__()
        self._train, self._validation = list(train), list(validation)

    def train_dataloader(self) -> DataLoader[Batch]:
        return _loader(self._train)

    def val_dataloader(self) -> DataLoader[Batch]:
        return _loader(self._validation)


def _loader(batches: Sequence[Batch]) -> DataLoader[Batch]:
    """Batches as they are: a plain list would be taken for several loaders."""
    return DataLoader(cast("Dataset[Batch]", batches), batch_size=None)


@dataclass
class _Probe(Callback):
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

    @property
    def step_s(self) -> float:
        intervals = [b - a for a, b in zip(self._steps, self._steps[1:], strict=False)]
        return sum(intervals) / len(intervals)

    @property
    def validation_s(self) -> float:
        return self._validation[1] - self._validation[0]

    @property
    def epoch_s(self) -> float:
        return max(self._end - self._steps[-1] - self.validation_s, 0.0)


class _Watch:
    """The largest memory of this process, and on its GPU, while it is open.

    Linux keeps the host's figure itself; elsewhere a thread looks again and again.
    """

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._kept = False
        self._seen = 0
        self._device = torch.device("cpu")

    def __enter__(self) -> _Watch:
        self._kept = _forget_peak()
        if not self._kept:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._closed.set()
            self._thread.join()

    def start(self, device: torch.device) -> None:
        """Forgets what a GPU held at most so far."""
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def host(self) -> int:
        """Most bytes of the process."""
        return _peak() if self._kept else max(self._seen, psutil.Process().memory_info().rss)

    def reserved(self) -> int:
        """Most bytes that were reserved on the GPU since `start`."""
        on_cuda = self._device.type == "cuda"
        return torch.cuda.max_memory_reserved(self._device) if on_cuda else 0

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._closed.wait(0.01):
            self._seen = max(self._seen, process.memory_info().rss)


def _forget_peak() -> bool:
    """Makes Linux take the peak of this process anew (proc(5), clear_refs); False elsewhere."""
    try:
        _CLEAR.write_text("5")
        return _peak() > 0
    except OSError:
        return False


def _peak() -> int:
    found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return 1024 * int(found.group(1)) if found else 0
