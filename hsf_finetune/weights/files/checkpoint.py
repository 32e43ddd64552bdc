"""Pretrained weights as one value, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

OWN = "hsf_finetune"
"""Key of our own remarks inside a checkpoint."""
FORMAT = 1
"""Version of those remarks."""
PREFIX = "network."
"""What our Lightning module puts before the network's tensor names."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Pretrained weights, on the CPU.

    Args:
        tensors: name -> tensor; the network's own names for our checkpoints, and
            whatever the file says for others.
        classes: class of each output channel, background first; None if not recorded.
        meta: our remarks (models, in_channels, label_values, ...); None for files
            written by others.
        path: the file that the tensors come from.
        digest: SHA-256 of that file.
        averaged: whether these are averaged (EMA) weights.
        models: the network they belong to, as the plain form of one of the `models`
            settings (`{"name": "unet", "channels": [...], ...}`); None if the source
            does not tell.
        in_channels: input channels of that network; None if the source does not tell.
        channel_names: name of each input channel (`("T1", "T2")`); None if not recorded.
        origin: remarks on where the weights come from, as plain values: `format`, and
            where known `licence`, `citation`, `url`, `name`, `version`.
        left_out: names of the file's tensors that were not taken: those outside a forced
            prefix, or the other copy where a file holds averaged and raw weights.
    """

    tensors: Mapping[str, torch.Tensor]
    classes: tuple[str, ...] | None
    meta: dict[str, Any] | None
    path: Path
    digest: str
    averaged: bool = False
    models: dict[str, Any] | None = None
    in_channels: int | None = None
    channel_names: tuple[str, ...] | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
