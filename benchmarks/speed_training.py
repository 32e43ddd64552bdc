"""What a training step costs, beside a bare forward and backward pass on the same batch.

The bare pass runs right after each of our steps, in a second copy of the network in which
nothing but `requires_grad` is set: forward through everything, the loss, and backward as far
as a block that trains. That is what the step should cost in theory; ours is the trainer's,
with AdamW, clipping, averaged weights, rates and logging.

An encoder block trains through the whole decoder, frozen or not, so that its step should cost
nearly as much as one that trains everything.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch
from clock import now
from rows import Row, row
from torch import Tensor
from torch.nn import functional

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.experiment.active_run import make_data
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.planning.setup import prepare
from hsf_finetune.schedule.stages import NORMS, Schedule
from hsf_finetune.training.averaging import AveragedWeights
from hsf_finetune.training.losses import LabelSetLoss, Loss
from hsf_finetune.training.train import build_module
from hsf_finetune.training.trainer import make_trainer, run_trainer

STAGES = (
    # Its first stages are those of the default, mode decoder.
    ({"strategy": "gradual_unfreezing", "mode": "both", "unfreeze_frequency": 1}, 8),
    ({"strategy": "gradual_unfreezing", "mode": "encoder", "unfreeze_frequency": 1}, 4),
    ({"strategy": "encoder_first"}, 1),
)
"""Regimes, each with the epochs in which it shows its stages once."""

STAGE_STEPS = 4
"""Steps of an epoch of these."""


@dataclass
class Seconds:
    """Of one stage: ours and the bare pass, step by step, and whole epochs without the latter."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)

    def add(self, other: Seconds) -> None:
        """Takes in those of another round."""
        self.ours += other.ours
        self.bare += other.bare
        self.epochs += other.epochs

    @property
    def step_ratio(self) -> float:
        """Median over steps of ours over the bare pass that followed it."""
        return statistics.median(a / b for a, b in zip(self.ours, self.bare, strict=True))


class Beside(L.Callback):
    """Times each of our steps, and a bare pass on the same batch right after it.

    It has to be the last callback, so that the others' work counts. The first step of
    an epoch, which makes the moments of blocks that have just unfrozen, does not count.

    Args:
        anatomy: the network, which is copied.
        schedule: what trains in which epoch.
        device: where it trains.
        loss: of the bare pass.
    """

    def __init__(
        self, anatomy: Anatomy, schedule: Schedule, device: torch.device, loss: Loss
    ) -> None:
        self._network = deepcopy(anatomy.network).to(device)
        names = {id(p): name for name, p in anatomy.network.named_parameters()}
        self._own = {
            block.name: {names[id(p)] for p in block.parameters()} for block in anatomy.blocks
        }
        self._norms = {
            names[id(p)] for b in anatomy.blocks for layer in b.norms() for p in layer.parameters()
        }
        self._schedule = schedule
        self._device = device
        self._loss = loss
        self._epoch_started = self._started = self._bare_s = 0.0
        self.stages = [Seconds() for _ in schedule.stages]
        self.names = [_name(anatomy, stage.rates) for stage in schedule.stages]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freezes the copy as the schedule says, and starts the clock."""
        trains = self._schedule.trainable(trainer.current_epoch)
        chosen = set().union(*(self._own[name] for name in trains - {NORMS}))
        if NORMS in trains:
            chosen |= self._norms
        for name, parameter in self._network.named_parameters():
            parameter.requires_grad_(name in chosen)
        self._bare_s = 0.0
        self._epoch_started = now(self._device)

    def on_train_batch_start(self, *_: object) -> None:
        """Starts the step's clock, once the batch is augmented and on the device."""
        self._started = now(self._device)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Stops it, and times the bare pass."""
        ended = now(self._device)
        self._network.zero_grad(set_to_none=True)
        started = now(self._device)
        with trainer.precision_plugin.forward_context():
            logits = self._network(batch["image"])
            loss = self._loss(logits, batch["label"], batch["allowed"])
        loss.backward()
        bare = now(self._device) - started
        self._bare_s += now(self._device) - ended
        if batch_idx:
            stage = self.stages[self._schedule.stage_index(trainer.current_epoch)]
            stage.ours.append(ended - self._started)
            stage.bare.append(bare)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the epoch's clock, unless it was the first, which warms up."""
        if trainer.current_epoch == 0:
            return
        stage = self.stages[self._schedule.stage_index(trainer.current_epoch)]
        stage.epochs.append(now(self._device) - self._epoch_started - self._bare_s)


# ------------------------------------------------------------------------ rows
def training_rows(settings: Settings, device: torch.device, rounds: int, folder: Path) -> list[Row]:
    """Our step and epoch when everything trains, against a bare pass with cross-entropy."""
    seconds = Seconds()
    steps = 0
    for _ in range(rounds):
        beside, steps = fitted(settings, device, folder, plain_cross_entropy)
        seconds.add(beside.stages[0])
    bare = "bare forward + backward"
    bare_ms, ours_ms = medians_ms(seconds)
    epoch_ms = 1000 * statistics.median(seconds.epochs) / steps
    epoch_ratio = statistics.median(seconds.epochs) / steps / statistics.median(seconds.bare)
    return [
        row(bare, bare_ms, "ms/step", "", None),
        row("our step (loss, AdamW, clipping, EMA)", ours_ms, "ms/step", bare, seconds.step_ratio),
        row(
            "our epoch (step, reading, augmentation, logging)",
            epoch_ms,
            "ms/step",
            bare,
            epoch_ratio,
        ),
    ]


def stage_rows(settings: Settings, device: torch.device, rounds: int, folder: Path) -> list[Row]:
    """Our step in each stage of `STAGES`, against what it should cost in theory.

    The bare pass uses the loss of the run: it is a third of what is left to do where
    the head alone trains.
    """
    cases = STAGE_STEPS * settings.datasets.batch_size
    datasets = settings.datasets.model_copy(update={"k_sample": cases, "replace": True})
    seconds: dict[str, Seconds] = {}
    for _ in range(rounds):
        for regime, epochs in STAGES:
            own = settings.model_copy(
                update={
                    "datasets": datasets,
                    "finetuning": settings.finetuning.model_copy(
                        update={**regime, "budget": "fixed"}
                    ),
                    "lightning": settings.lightning.model_copy(
                        update={"max_epochs": epochs, "check_val_every_n_epoch": epochs + 1}
                    ),
                }
            )
            beside, _ = fitted(own, device, folder, LabelSetLoss("dice_ce"))
            for name, stage in zip(beside.names, beside.stages, strict=True):
                seconds.setdefault(name, Seconds()).add(stage)
    rows = []
    for name, stage in seconds.items():
        bare_ms, ours_ms = medians_ms(stage)
        reference = f"{bare_ms:.4g} ms in theory"
        rows.append(row(f"step: {name}", ours_ms, "ms/step", reference, stage.step_ratio))
    return rows


# ------------------------------------------------------------------------ measuring
def fitted(
    settings: Settings, device: torch.device, folder: Path, loss: Loss
) -> tuple[Beside, int]:
    """Trains one fit with `Beside` watching; returns it, and the steps of an epoch."""
    setup = prepare(settings, discover(settings.datasets, settings.models), preview=True)
    data = make_data(setup)
    data.read()
    beside = Beside(setup.anatomy, setup.schedule, device, loss)
    callbacks = [AveragedWeights(0.99), beside]
    epochs = setup.schedule.max_epochs
    trainer = make_trainer(settings.lightning, settings.logger, folder, epochs, callbacks)
    steps = data.steps_per_epoch(1, 1)
    module = build_module(setup.job, steps)
    run_trainer(trainer, module, data, resume_from=None)
    return beside, steps


def plain_cross_entropy(logits: Tensor, rows: Tensor, allowed: Tensor) -> Tensor:
    """The least that a loss can cost."""
    return functional.cross_entropy(logits.float(), rows.long())


def medians_ms(seconds: Seconds) -> tuple[float, float]:
    """Of the bare pass and of our step."""
    return 1000 * statistics.median(seconds.bare), 1000 * statistics.median(seconds.ours)


def _name(anatomy: Anatomy, trains: Collection[str]) -> str:
    """`head to decoder2` where everything from the head to that block trains."""
    order = [block.name for block in reversed(anatomy.blocks)]
    blocks = [name for name in order if name in trains]
    if len(blocks) == len(order):
        return "everything"
    if len(blocks) > 1 and blocks == order[: len(blocks)]:
        return f"{blocks[0]} to {blocks[-1]}"
    return ", ".join([*blocks, NORMS] if NORMS in trains else blocks)
