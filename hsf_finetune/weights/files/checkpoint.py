"""Pretrained weights as one value, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.config.settings import Preprocessing

META_KEY = "hsf_finetune"
"""Key inside a checkpoint of this package's own entry: classes, settings, ..."""
FORMAT = 1
"""Version of that entry."""
NETWORK_PREFIX = "network."
"""What the Lightning module of this package puts before the network's tensor names."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Pretrained weights, on the CPU.

    Args:
        tensors: name -> tensor; for checkpoints of this package the network's own names,
            for others the names in the file.
        classes: class of each output channel, background first; None if not recorded.
        meta: the entry that this package writes (models, in_channels, label_values, ...);
            None for files written by others.
        path: the file that the tensors come from.
        digest: SHA-256 of that file.
        averaged: whether these are averaged (EMA) weights.
        models: the network they belong to, as the plain form of one of the `models`
            settings (`{"name": "unet", "channels": [...], ...}`); None if not recorded.
        in_channels: input channels of that network; None if not recorded.
        channel_names: name of each input channel (`("T1", "T2")`); None if not recorded.
        preprocessing: how scans are prepared for that network; None if not recorded.
        unread: steps of that which this package cannot follow, in words.
        origin: where the weights come from, as plain values: `format`, and where known
            `licence`, `citation`, `url`, `name`, `version`.
        described: what the file holds beside tensors of what other programs describe their
            weights with, such as nnU-Net's `init_args`.
        left_out: names of the file's tensors that are not in `tensors`: those outside the
            chosen prefix, or the other copy where a file holds averaged and raw weights.
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
    preprocessing: Preprocessing | None = None
    unread: tuple[str, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
