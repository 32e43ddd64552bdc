"""Training and validation steps, with the trainable part given by the schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hsf_finetune.data.augment.mixing import BatchMixing
from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.deep_supervision import supervised_outputs
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.schedule.stages import NORMS, Schedule
from hsf_finetune.system.errors import TrainingError
from hsf_finetune.training.losses import Loss
from hsf_finetune.training.parameter_groups import parameter_groups
from hsf_finetune.training.validation_dice import case_dice, mean_over_cases, mean_per_class

Augmentation = Callable[
    [Tensor, Tensor, Tensor, torch.Generator, Tensor], tuple[Tensor, Tensor, Tensor]
]

FurtherLoss = Callable[[Batch, Tensor], Tensor]
"""A term of the loss: (batch, logits at full size) -> scalar."""

CaseScore = tuple[dict[str, float], float]
"""Dice of each annotated set of a case, and its loss."""

MONITOR = "val/dice"
"""Mean validation Dice (`mean_over_cases`), which decides the best epoch."""


@dataclass(frozen=True)
class Objective:
    """What training minimises.

    Args:
        loss: (logits, label rows, allowed sets) -> scalar.
        weight_decay: of AdamW, on all weights except biases and norms.
        augmentations: of batches on the training device, one for each stage of the
            schedule; None is none.
        mixings: mixup and CutMix of batches, in the same way.
    """

    loss: Loss
    weight_decay: float
    augmentations: tuple[Augmentation | None, ...]
    mixings: tuple[BatchMixing | None, ...]


class SegmentationModule(L.LightningModule):
    """A network in training.

    Every block is in the optimiser from the start; which of them trains, and at which
    rate, follows from the schedule and the epoch alone. A frozen block has no gradient,
    and its normalisation and dropout are in eval mode.

    Args:
        anatomy: the network and its blocks.
        schedule: which block trains when.
        steps_per_epoch: optimiser steps of an epoch.
        objective: loss, weight decay and augmentation.
        card: description of the model, which checkpoints contain.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        schedule: Schedule,
        steps_per_epoch: int,
        objective: Objective,
        card: ModelCard,
    ) -> None:
        super().__init__()
        self.network = anatomy.network
        self.anatomy = anatomy
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self.objective = objective
        self.card = card
        self.validation_loss: float | None = None
        self.further_loss: FurtherLoss | None = None
        self._scores: dict[str, CaseScore] = {}
        self._validated: tuple[int, frozenset[str]] = (-1, frozenset())

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes, X, Y, Z) of images (B, C, X, Y, Z)."""
        logits: Tensor = self.network(image)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW (Loshchilov and Hutter, 2019), with the groups of `parameter_groups`."""
        groups = [g for block in self.anatomy.blocks for g in parameter_groups(block)]
        for group in groups:
            group["weight_decay"] *= self.objective.weight_decay
        return torch.optim.AdamW(groups, lr=1.0)

    def on_train_epoch_start(self) -> None:
        """Freezes and unfreezes for this epoch."""
        trainable = self.schedule.trainable(self.current_epoch)
        for block in self.anatomy.blocks:
            block.train(block.name in trainable)
            for layer in block.norms() if NORMS in trainable else ():
                layer.train()
        for group in self.trainer.optimizers[0].param_groups:
            trains = group["name"] in trainable or (group["norms"] and NORMS in trainable)
            for parameter in group["params"]:
                parameter.requires_grad_(trains)
                if not trains:
                    # AdamW moves a parameter whose gradient is 0, not one that has none.
                    parameter.grad = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the rate of each block for this step."""
        step = batch_idx // self.trainer.accumulate_grad_batches
        trainable = self.schedule.trainable(self.current_epoch)
        for group in self.trainer.optimizers[0].param_groups:
            part = group["name"]
            if part not in trainable and group["norms"]:
                part = NORMS
            group["lr"] = self.schedule.rate(part, self.current_epoch, step, self.steps_per_epoch)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments training batches on the training device."""
        stage = self.schedule.stage_index(self.current_epoch)
        augmentation, mixing = self.objective.augmentations[stage], self.objective.mixings[stage]
        if augmentation is None or not self.trainer.training:
            return batch
        generator = torch.Generator().manual_seed(batch["seed"])
        image, label, allowed = augmentation(
            batch["image"], batch["label"], batch["allowed"], generator, batch["spacing"].cpu()
        )
        if mixing is not None:
            image, label, allowed, mixture = mixing(image, label, allowed, batch["seed"])
            if mixture is not None:
                batch["mixture"] = mixture
        batch["image"], batch["label"], batch["allowed"] = image, label, allowed
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch; dropout depends on the seed of the batch alone."""
        torch.manual_seed(batch["seed"])
        levels = supervised_outputs(self(batch["image"]))
        loss = self._training_loss(levels, batch)
        if "mixture" in batch:
            shift, share = batch["mixture"].shift, batch["mixture"].share
            other = batch.copy()
            other["label"] = batch["label"].roll(shift, 0)
            other["allowed"] = batch["allowed"].roll(shift, 0)
            loss = share * loss + (1 - share) * self._training_loss(levels, other)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} in epoch {self.current_epoch}, "
                f"step {self.global_step}",
                found=f"cases {', '.join(batch['case'])}",
                fix="lower models.lr, or check these cases; the checkpoints of earlier epochs "
                "are intact",
            )
        cases = len(batch["case"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=cases)
        return loss

    def _training_loss(self, levels: Sequence[tuple[float, Tensor]], batch: Batch) -> Tensor:
        """The loss of the labels of a batch, over all outputs that are supervised."""
        losses = [w * self.objective.loss(z, batch["label"], batch["allowed"]) for w, z in levels]
        loss = torch.stack(losses).sum()
        if self.further_loss is not None:
            loss = loss + self.further_loss(batch, levels[0][1])
        return loss

    def on_validation_epoch_start(self) -> None:
        """Deletes the scores of the epoch before."""
        self._scores = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scores whole cases; returns their logits, which callbacks may draw."""
        card = self.card
        logits = volume_logits(self, batch["image"], self.anatomy.divisor, card.preprocessing)
        loss = float(self.objective.loss(logits, batch["label"], batch["allowed"]))
        for one, case in enumerate(batch["case"]):
            dice = case_dice(logits[one], batch["label"][one], batch["allowed"][one], card.classes)
            self._scores[case] = dice, loss
        return logits

    def on_validation_epoch_end(self) -> None:
        """Logs the mean Dice of each class and `mean_over_cases`, of the cases of all processes."""
        scores = self._all_scores()
        if not scores:
            return
        cases = [dice for dice, _ in scores]
        per_class = mean_per_class(cases)
        figures = {f"{MONITOR}/{name}": value for name, value in per_class.items()}
        figures[MONITOR] = mean_over_cases(cases)
        self.validation_loss = sum(loss for _, loss in scores) / len(scores)
        figures["val/loss"] = self.validation_loss
        self.log_dict(figures, sync_dist=True)
        self._validated = self.current_epoch, frozenset(figures)

    def epoch_figures(self) -> dict[str, Tensor]:
        """All that was logged in this epoch, for its end; to be called by all processes.

        The trainer keeps what was logged in earlier epochs, such as figures of a validation
        that this epoch did not have.
        """
        epoch, names = self._validated
        old = names if epoch != self.current_epoch else ()
        return {k: v for k, v in self.trainer.callback_metrics.items() if k not in old}

    def _all_scores(self) -> list[CaseScore]:
        """Scores and losses of the cases of all processes, as one process has them: each once."""
        parts: list[Any] = [self._scores]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self._scores)
        # The processes take turns; those that have no case left repeat the first ones.
        rounds = zip_longest(*(part.items() for part in parts))
        return list({case: score for one in rounds for case, score in filter(None, one)}.values())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the card, so that the weights can be used without this run's configuration."""
        checkpoint["hsf_finetune"] = self.card.to_dict()
