"""The `lightning` and `logger` groups: how the loop runs, and where curves go."""

from __future__ import annotations

from typing import Literal

from hsf_finetune.config.settings.base_settings import Group, Positive, Whole


class LightningSettings(Group):
    """The `lightning` group: how the loop runs."""

    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: Whole = 1
    strategy: str = "auto"
    precision: str = "auto"
    """`auto` is bf16-mixed on CUDA devices that have it and 32-true elsewhere."""
    max_epochs: Whole | None = None
    """None follows from the schedule."""
    accumulate_grad_batches: Whole = 1
    gradient_clip_val: Positive | None = 1.0
    check_val_every_n_epoch: Whole = 1
    log_every_n_steps: Whole = 10
    benchmark: bool = True
    deterministic: bool | Literal["warn"] = False
    forecast: bool = True
    """Whether a few dry steps say before training what it takes in memory and time."""
    threads: Whole | None = None
    """CPU threads; None leaves PyTorch's choice."""


class LoggerSettings(Group):
    """The `logger` group. metrics.csv is always written."""

    name: Literal["tensorboard", "csv", "wandb"] = "tensorboard"
    project: str = "hsf_finetune"
    """wandb: project name."""
    offline: bool = False
    """wandb: keep everything local."""
