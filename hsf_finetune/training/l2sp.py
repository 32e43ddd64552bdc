"""Regularisation towards the weights that a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.training.module import SegmentationModule


class L2SPRegulariser(Callback):
    """Moves, after each step, every trained weight back towards its start by a share.

    The L2-SP penalty of Li et al., "Explicit inductive bias for transfer learning with
    convolutional networks" (ICML 2018), decoupled from AdamW's moments as its weight
    decay is: w <- w - rate * strength * (w - start). It replaces weight decay.

    Args:
        strength: in the formula.
        file: keeps the starting weights for a resume.
    """

    state_key = "TowardsStart"
    """Name of its state in checkpoints, as in version 0.1.0."""

    def __init__(self, strength: float, file: Path) -> None:
        self._strength = strength
        self._file = file
        self._start: dict[int, Tensor] = {}
        self._steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the starting weights of a new run, and reads those of a resumed one.

        Raises:
            WeightsError: the starting weights of a resumed run are missing.
        """
        assert isinstance(pl_module, SegmentationModule)
        parameters = dict(pl_module.network.named_parameters())
        if self._steps:
            if not self._file.exists():
                raise WeightsError(
                    "the weights that the run started from are missing, so it cannot be resumed",
                    file=self._file,
                    fix="start a new run: finetuning.regularise=l2sp needs these weights",
                )
            start = torch.load(self._file, map_location="cpu", weights_only=True)
        else:
            start = {name: p.detach().clone() for name, p in parameters.items()}
            if trainer.is_global_zero:
                with atomic_write(self._file) as temporary:
                    torch.save(start, temporary)
        self._start = {id(p): start[name].to(p.device) for name, p in parameters.items()}
        self._steps = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint keeps."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state that a checkpoint kept."""
        self._steps = state_dict["steps"]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Moves the weights, if the optimiser has just made a step."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        with torch.no_grad():
            for group in trainer.optimizers[0].param_groups:
                share = min(group["lr"] * self._strength, 1.0)
                for parameter in group["params"]:
                    if parameter.requires_grad:
                        parameter.lerp_(self._start[id(parameter)], share)
