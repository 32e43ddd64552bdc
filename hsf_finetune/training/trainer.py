"""From settings to a trainer, and the fit itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hsf_finetune.config.settings import LightningSettings, LoggerSettings
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.files import atomic_write
from hsf_finetune.training.allocator import keep_freed_memory
from hsf_finetune.training.module import MONITOR, SegmentationModule

_DDP = "ddp_find_unused_parameters_true"
"""The one multi-process strategy under which a block may unfreeze: it is frozen after the
wrapping, and parameters without a gradient are expected."""


def make_trainer(
    settings: LightningSettings,
    logger: LoggerSettings,
    run_dir: Path,
    max_epochs: int,
    callbacks: Sequence[Callback],
    check_before: bool = False,
) -> L.Trainer:
    """A trainer that writes into `run_dir` only.

    Args:
        settings: the `lightning` group.
        logger: the `logger` group.
        run_dir: the run's folder.
        max_epochs: of the schedule.
        callbacks: what happens around the steps.
        check_before: validate the untouched model before the first epoch.

    Raises:
        ConfigError: Lightning cannot do what the settings ask for on this machine.
    """
    _quiet()
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=_strategy(settings),
            precision=_precision(settings),  # type: ignore[arg-type]
            max_epochs=max_epochs,
            accumulate_grad_batches=settings.accumulate_grad_batches,
            gradient_clip_val=settings.gradient_clip_val,
            check_val_every_n_epoch=settings.check_val_every_n_epoch,
            log_every_n_steps=settings.log_every_n_steps,
            benchmark=settings.benchmark,
            deterministic=settings.deterministic,
            num_sanity_val_steps=-1 if check_before else 0,
            logger=_loggers(logger, run_dir),
            callbacks=[*callbacks],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run_dir,
        )
    except (ValueError, RuntimeError, ModuleNotFoundError) as error:
        raise ConfigError(
            "the trainer cannot be set up like this",
            found=str(error).splitlines()[0],
            fix="lightning=default chooses device, precision and strategy by itself",
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is complete."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes the checkpoint.

        Raises:
            OutputError: the disk is full, or the folder cannot be written to.
        """
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


class MovableCheckpoint(ModelCheckpoint):
    """Knows its best score even after the run's folder has moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Picks up where a checkpoint was written, with its files where they are now."""

        def here(value: Any) -> Any:
            if isinstance(value, dict):
                return {here(key): here(item) for key, item in value.items()}
            if isinstance(value, str) and value.startswith(str(state_dict["dirpath"])):
                return value.replace(str(state_dict["dirpath"]), str(self.dirpath), 1)
            return value

        super().load_state_dict(here(state_dict))


def checkpoint_callbacks(folder: Path) -> list[Callback]:
    """Keeps `best.ckpt` by validation Dice, and `last.ckpt` of every epoch."""
    best = MovableCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=MONITOR,
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    last = MovableCheckpoint(
        dirpath=folder,
        filename="last",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return [best, last]


def fit(
    trainer: L.Trainer,
    module: SegmentationModule,
    data: CasesDataModule,
    resume_from: Path | None,
) -> None:
    """Runs the loop, from the start or from a checkpoint of the same run."""
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)


_EXPECTED_WARNINGS = (
    ".*could not find the monitored key in the returned metrics.*",
    ".*You have overridden `on_after_batch_transfer` in `LightningModule`.*",
    ".*does not have many workers.*",
    ".*number of training batches.*smaller than the logging interval.*",
    ".*Checkpoint directory.*exists and is not empty.*",
    ".*It is recommended to use `self.log\\(.*sync_dist=True.*",
    ".*Found .* module\\(s\\) in eval mode at the start of training.*",
    ".*Trying to infer the `batch_size`.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


def _quiet() -> None:
    """Leaves talking to our own output; Lightning's advice goes to the debug level."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _strategy(settings: LightningSettings) -> str:
    if settings.strategy == "auto":
        return _DDP if _several_processes(settings) else "auto"
    if settings.strategy in ("ddp", _DDP):
        return _DDP
    raise ConfigError(
        f"lightning.strategy={settings.strategy} is not one under which blocks can unfreeze",
        expected="auto or ddp",
        fix="lightning.strategy=ddp",
    )


def _several_processes(settings: LightningSettings) -> bool:
    if settings.num_nodes > 1:
        return True
    devices = settings.devices
    if isinstance(devices, list):
        return len(devices) > 1
    if str(devices) in ("auto", "-1"):
        return settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    return str(devices).isdigit() and int(devices) > 1


def _precision(settings: LightningSettings) -> str:
    if settings.precision != "auto":
        return settings.precision
    on_cuda = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_cuda and torch.cuda.is_bf16_supported() else "32-true"


def _loggers(settings: LoggerSettings, run_dir: Path) -> list[Logger]:
    if settings.name == "tensorboard":
        return [TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="")]
    if settings.name == "wandb":
        try:
            from lightning.pytorch.loggers import WandbLogger

            return [
                WandbLogger(
                    project=settings.project,
                    save_dir=run_dir,
                    name=run_dir.name,
                    offline=settings.offline,
                )
            ]
        except ModuleNotFoundError as error:
            raise ConfigError(
                "logger=wandb needs the package wandb", fix="pip install 'hsf-finetune[wandb]'"
            ) from error
    return []
