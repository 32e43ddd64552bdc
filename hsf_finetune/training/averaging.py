"""Averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, with a decay that warms up.

    After s updates the decay is min(decay, (1 + s) / (10 + s)), so that the average
    follows the weights closely in short runs. Validation and checkpoints use it. It has at
    least 32 bits, since a share of 1 - decay of a change is often less than half the bits hold.

    Args:
        decay: largest decay, in [0, 1).
    """

    state_key = "WarmAverage"
    """Name of its state in checkpoints, as in version 0.1.0."""

    def __init__(self, decay: float) -> None:
        def average(averaged: Any, current: Any, updates: Tensor | int) -> None:
            if not averaged[0].is_floating_point():
                torch._foreach_copy_(averaged, current)
                return
            n = int(updates)
            current = [one.to(averaged[0].dtype) for one in current]
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(multi_avg_fn=average)
        self._trained: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validates the averaged weights.

        The average itself stays as it is: exchanged with weights in half precision, as the class
        above does, it would be rounded.
        """
        if self._average_model is not None:
            self._trained = [one.detach().clone() for one in _tensors(pl_module)]
            self._copy_average_to_current(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Goes back to the weights that are trained."""
        for current, trained in zip(_tensors(pl_module), self._trained, strict=False):
            current.data.copy_(trained)
        self._trained = []

    def network_state(self) -> dict[str, Tensor]:
        """The averaged weights under the network's own names."""
        assert self._average_model is not None
        return self._average_model.get_submodule("module.network").state_dict()

    def restart(self, pl_module: L.LightningModule) -> None:
        """Makes the average equal to the weights, as it is at the start of a run."""
        assert self._average_model is not None
        self._average_model.module.load_state_dict(pl_module.state_dict())
        self._average_model.n_averaged.zero_()


def _tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())
