"""Averaged weights."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, with a decay that warms up.

    After s updates the decay is min(decay, (1 + s) / (10 + s)), so that the average
    follows the weights closely in short runs. Validation and checkpoints use it.

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
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(multi_avg_fn=average)

    def network_state(self) -> dict[str, Tensor]:
        """The averaged weights under the network's own names."""
        assert self._average_model is not None
        return self._average_model.get_submodule("module.network").state_dict()

    def restart(self, pl_module: L.LightningModule) -> None:
        """Makes the average equal to the weights, as it is at the start of a run."""
        assert self._average_model is not None
        self._average_model.module.load_state_dict(pl_module.state_dict())
        self._average_model.n_averaged.zero_()
