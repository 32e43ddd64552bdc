"""Weights that are held near the pretrained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.files import atomic_write
from hsf_finetune.training.module import SegmentationModule


class TowardsStart(Callback):
    """After each step, takes a share of every trained weight's way from its start back.

    The L2-SP penalty of Li et al., "Explicit inductive bias for transfer learning with
    convolutional networks" (ICML 2018), decoupled from AdamW's moments as its weight
    decay is: w <- w - rate * strength * (w - start). It takes the place of weight decay.

    Args:
        strength: see above.
        file: where the starting weights are kept for a resume.
    """

    def __init__(self, strength: float, file: Path) -> None:
        self._strength = strength
        self._file = file
        self._start: dict[int, Tensor] = {}
        self._steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the weights of a new run, and finds those of a resumed one.

        Raises:
            WeightsError: a resumed run has lost its starting weights.
        """
        assert isinstance(pl_module, SegmentationModule)
        parameters = dict(pl_module.network.named_parameters())
        if self._steps:
            start = self._kept()
        else:
            start = {name: p.detach().clone() for name, p in parameters.items()}
            if trainer.is_global_zero:
                with atomic_write(self._file) as temporary:
                    torch.save(start, temporary)
        self._start = {id(p): start[name].to(p.device) for name, p in parameters.items()}
        self._steps = trainer.global_step

    def _kept(self) -> dict[str, Tensor]:
        if not self._file.exists():
            raise WeightsError(
                "the run cannot go on without the weights that it started from",
                file=self._file,
                fix="start it anew: finetuning.regularise=l2sp holds the weights near these",
            )
        kept: dict[str, Tensor] = torch.load(self._file, map_location="cpu", weights_only=True)
        return kept

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Picks up where a checkpoint was written."""
        self._steps = state_dict["steps"]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Pulls, if the optimiser has just made a step."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        with torch.no_grad():
            for group in trainer.optimizers[0].param_groups:
                share = min(group["lr"] * self._strength, 1.0)
                for parameter in group["params"]:
                    if parameter.requires_grad:
                        parameter.lerp_(self._start[id(parameter)], share)
