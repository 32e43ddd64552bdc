"""The Lightning trainer of a run, and its checkpoints."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hsf_finetune.config.settings import LightningSettings, LoggerSettings, Settings
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError, UserError
from hsf_finetune.system.freed_memory import keep_freed_memory
from hsf_finetune.system.interruption import end_if_asked, heed_interrupts
from hsf_finetune.system.run_folder import LAST, PREVIOUS
from hsf_finetune.training.module import MONITOR, SegmentationModule
from hsf_finetune.training.termination import EndOnSignal

_DDP = "ddp_find_unused_parameters_true"
"""The only strategy of several processes under which blocks can unfreeze: they are frozen
after the network is wrapped, and parameters without a gradient are expected."""
_FLOAT16_WEIGHTS = ("16-true", "transformer-engine-float16")


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
        callbacks: in the order in which they are called.
        check_before: validate the model before the first epoch.

    Raises:
        ConfigError: the settings do not suit Lightning on this machine.
    """
    # Lightning's messages are for developers; the package prints its own.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with _without_expected_warnings():
            return L.Trainer(
                accelerator=settings.accelerator,
                devices=settings.devices,
                num_nodes=settings.num_nodes,
                strategy=_DDP if trains_in_several_processes(settings) else "auto",
                precision=chosen_precision(settings),  # type: ignore[arg-type]
                max_epochs=max_epochs,
                accumulate_grad_batches=settings.accumulate_grad_batches,
                gradient_clip_val=settings.gradient_clip_val,
                check_val_every_n_epoch=settings.check_val_every_n_epoch,
                log_every_n_steps=settings.log_every_n_steps,
                benchmark=settings.benchmark,
                deterministic=settings.deterministic,
                num_sanity_val_steps=-1 if check_before else 0,
                logger=_loggers(logger, run_dir),
                callbacks=[*callbacks, EndOnSignal()],
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                plugins=[AtomicCheckpointIO()],
                default_root_dir=run_dir,
            )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(
            "the trainer does not accept these settings on this machine",
            found=str(error).splitlines()[0],
            fix="lightning=default chooses device, precision and strategy automatically",
        ) from error


def check_trainer(settings: Settings, max_epochs: int) -> None:
    """Refuses what no training on this machine can be made with, before anything is read.

    Raises:
        ConfigError: the settings do not suit Lightning on this machine, the weights would be
            of float16, or no epoch of the schedule is validated although validation chooses one.
    """
    every = settings.lightning.check_val_every_n_epoch
    if every > max_epochs and settings.finetuning.budget != "fixed":
        raise ConfigError(
            f"no epoch is validated, since the schedule has {count_of(max_epochs, 'epoch')}",
            found=f"lightning.check_val_every_n_epoch={every}",
            fix=f"lightning.check_val_every_n_epoch={max_epochs} or less; or finetuning.budget=fixed",
        )
    if settings.lightning.precision in _FLOAT16_WEIGHTS:
        raise ConfigError(
            "weights in float16 cannot be trained: the smallest number that AdamW adds is 0 in it",
            found=f"lightning.precision={settings.lightning.precision}",
            fix="lightning.precision=16-mixed, bf16-mixed or bf16-true",
        )
    make_trainer(settings.lightning, settings.logger, Path(), max_epochs, [])


def one_device(engine: LightningSettings, what: str, instead: str) -> LightningSettings:
    """The same engine on a single device: several runs share this process.

    Args:
        engine: the `lightning` group.
        what: what it is that trains on one device, for the message.
        instead: what the user can do to train on several.

    Raises:
        ConfigError: the settings want several.
    """
    several = str(engine.devices) not in ("auto", "1", "[0]") and (
        not isinstance(engine.devices, list) or len(engine.devices) > 1
    )
    if several or engine.num_nodes > 1:
        raise ConfigError(
            f"{what} on one device, one run after the other",
            found=f"lightning.devices={engine.devices}, lightning.num_nodes={engine.num_nodes}",
            fix=f"lightning.devices=1; or {instead}",
        )
    return engine.model_copy(update={"devices": 1}) if engine.devices == "auto" else engine


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file and renames it when it is complete."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes the checkpoint.

        Raises:
            OutputError: the disk is full, or the folder cannot be written to.
        """
        with atomic_write(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
            if Path(path).name == LAST and Path(path).exists():
                # A disk may damage the newest one: the one before is kept as well.
                os.replace(path, Path(path).with_name(PREVIOUS))


class MovableCheckpoint(ModelCheckpoint):
    """Keeps its best score even if the run's folder has moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state that a checkpoint kept, with its paths in the present folder."""

        def move(value: Any) -> Any:
            if isinstance(value, dict):
                return {move(key): move(item) for key, item in value.items()}
            if isinstance(value, str) and value.startswith(str(state_dict["dirpath"])):
                return value.replace(str(state_dict["dirpath"]), str(self.dirpath), 1)
            return value

        super().load_state_dict(move(state_dict))


def checkpoint_callbacks(folder: Path) -> list[Callback]:
    """Callbacks that save `best.ckpt` by validation Dice, and `last.ckpt` after every epoch."""
    save = partial(
        MovableCheckpoint, folder, save_on_train_epoch_end=True, enable_version_counter=False
    )
    best = save(filename="best", monitor=MONITOR, mode="max", auto_insert_metric_name=False)
    return [best, save(filename="last")]


def run_trainer(
    trainer: L.Trainer, module: SegmentationModule, data: CasesDataModule, resume_from: Path | None
) -> None:
    """Trains, from the start or from a checkpoint of the same run.

    Raises:
        KeyboardInterrupt: after Ctrl+C, when the step has ended.
    """
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    if trainer.precision == "64-true":
        # Before a checkpoint is read: 32 bits would round its weights, and their average.
        module.double()
    with _without_expected_warnings(), heed_interrupts(between_steps=True):
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
        except UserError:
            raise
        except (Exception, SystemExit):
            # Lightning exits for an interrupt, and processes fail whose partner was interrupted.
            end_if_asked()
            raise
        end_if_asked()


def keep_last(checkpoints: Path) -> None:
    """Makes `best.ckpt` the last checkpoint of a run.

    Raises:
        OutputError: the disk is full.
    """
    with atomic_write(checkpoints / "best.ckpt") as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(checkpoints / LAST, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(checkpoints / LAST, temporary)


_EXPECTED_WARNINGS = (
    ".*The `srun` command is available on your system but is not used.*",
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


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    """Silences what Lightning warns about in every run; all other warnings are shown."""
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def trains_in_several_processes(settings: LightningSettings) -> bool:
    """Whether the settings, or the devices of this machine, ask for several processes."""
    if settings.num_nodes > 1 or settings.strategy != "auto":
        return True
    devices = settings.devices
    if isinstance(devices, list):
        return len(devices) > 1
    if str(devices) in ("auto", "-1"):
        return settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    return str(devices).isdigit() and int(devices) > 1


def chosen_precision(settings: LightningSettings) -> str:
    """The precision of training, one of Lightning's: what `auto` stands for on this machine."""
    if settings.precision != "auto":
        return settings.precision
    on_cuda = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_cuda and torch.cuda.is_bf16_supported() else "32-true"


def _loggers(settings: LoggerSettings, run_dir: Path) -> list[Logger]:
    if settings.name == "tensorboard":
        return [TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="")]
    if settings.name != "wandb":
        return []
    try:
        project, offline = settings.project, settings.offline
        return [WandbLogger(run_dir.name, run_dir, project=project, offline=offline)]
    except ModuleNotFoundError as error:
        raise ConfigError(
            "logger=wandb needs the package wandb", fix="pip install 'hsf-finetune[wandb]'"
        ) from error
