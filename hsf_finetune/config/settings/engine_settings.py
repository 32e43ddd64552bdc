"""The `lightning` and `logger` groups: how training runs, and where curves are shown."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, field_validator

from hsf_finetune.config.settings.base_settings import Group, Positive, Whole, as_text

Precision = Literal[
    "auto",
    "32-true",
    "32",
    "bf16-mixed",
    "bf16-true",
    "bf16",
    "16-mixed",
    "16-true",
    "16",
    "64-true",
    "64",
    "transformer-engine",
    "transformer-engine-float16",
]
"""`auto`, and those of Lightning."""


class LightningSettings(Group):
    """The `lightning` group: how training runs."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int | str | list[int] = "auto"
    """How many, which ones, or `auto`; -1 is all."""
    num_nodes: Whole = 1
    strategy: str = "auto"
    """`auto`, or `ddp` for several processes."""
    precision: Annotated[Precision, BeforeValidator(as_text)] = "auto"
    """`auto` is bf16-mixed on CUDA devices that have it, and on CPUs where it is faster; else 32-true."""
    max_epochs: Whole | None = None
    """None follows from the schedule."""
    accumulate_grad_batches: Whole = 1
    gradient_clip_val: Positive | None = 1.0
    check_val_every_n_epoch: Whole = 1
    log_every_n_steps: Whole = 10
    benchmark: bool = True
    deterministic: bool | Literal["warn"] = False
    forecast: bool = True
    """Whether a few dry steps measure memory and time before training."""
    threads: Whole | None = None
    """CPU threads; None leaves PyTorch's choice."""
    requeue: bool = False
    """Whether a job of SLURM is queued again on SIGUSR1, and continues the run that it began."""

    @field_validator("devices")
    @classmethod
    def _devices_exist(cls, devices: int | str | list[int]) -> int | str | list[int]:
        if isinstance(devices, str):
            valid = bool(re.fullmatch(r"auto|-1|[1-9]\d*|\d+(,\d+)+", devices))
        elif isinstance(devices, int):
            valid = devices == -1 or devices > 0
        else:
            valid = bool(devices) and min(devices) >= 0 and len(set(devices)) == len(devices)
        if not valid:
            raise ValueError(
                "should be auto, a number of devices, -1 (all), or a list such as [0, 1]"
            )
        return devices

    @field_validator("strategy")
    @classmethod
    def _blocks_can_unfreeze(cls, strategy: str) -> str:
        if strategy not in ("auto", "ddp", "ddp_find_unused_parameters_true"):
            raise ValueError("should be auto or ddp: blocks cannot unfreeze under other strategies")
        return strategy


class LoggerSettings(Group):
    """The `logger` group. metrics.csv is always written."""

    name: Literal["tensorboard", "csv", "wandb"] = "tensorboard"
    project: str = "hsf_finetune"
    """wandb: project name."""
    offline: bool = False
    """wandb: keep everything local."""
