"""The training of a run: its trainer, module, callbacks and random changes, put together."""

from __future__ import annotations

from lightning.pytorch.callbacks import Callback

from hsf_finetune.config.settings import AugmentationSettings, Settings
from hsf_finetune.data.augment.augmentation import BatchAugmentation
from hsf_finetune.data.augment.flips import plan_flips
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.inference.predictor import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.planning.budget import keep_last
from hsf_finetune.schedule.stages import Schedule, Stage
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import RunFolder
from hsf_finetune.training.averaging import WarmAverage
from hsf_finetune.training.callbacks import DivergenceGuard, Heartbeat, ScheduleLogger
from hsf_finetune.training.l2sp import TowardsStart
from hsf_finetune.training.losses import build_loss, weights_in_order
from hsf_finetune.training.metrics_file import MetricsCsv
from hsf_finetune.training.module import SegmentationModule
from hsf_finetune.training.parameter_groups import block_sizes
from hsf_finetune.training.preview import Preview
from hsf_finetune.training.stage_control import Stages
from hsf_finetune.training.trainer import checkpoint_callbacks, fit, make_trainer
from hsf_finetune.training.training_cost import Cost


def train(
    settings: Settings,
    run: RunFolder,
    cohort: Cohort,
    anatomy: Anatomy,
    schedule: Schedule,
    data: CasesDataModule,
    card: ModelCard,
    baseline: float | None,
) -> None:
    """Fits the network, in place.

    Args:
        settings: of the run.
        run: its folder.
        cohort: the cases, for what a flip may exchange.
        anatomy: the network, with the weights it starts from.
        schedule: which block trains when.
        data: loaders.
        card: what checkpoints say of themselves.
        baseline: mean validation Dice of the model we start from; None if there is none.
    """
    engine = settings.lightning
    around = _callbacks(settings, run, anatomy, schedule, card, baseline)
    # All processes have to agree on this; only the leading one knows the baseline.
    watched = settings.finetuning.pretrained != "none" and bool(
        settings.finetuning.divergence_share
    )
    trainer = make_trainer(
        engine, settings.logger, run.path, schedule.max_epochs, around, check_before=watched
    )
    steps = data.steps_per_epoch(trainer.world_size, engine.accumulate_grad_batches)
    module = build_module(settings, cohort, anatomy, schedule, steps, card)
    fit(trainer, module, data, run.last)
    if settings.finetuning.budget == "fixed" and trainer.is_global_zero:
        keep_last(run.checkpoints)


def build_module(
    settings: Settings,
    cohort: Cohort,
    anatomy: Anatomy,
    schedule: Schedule,
    steps_per_epoch: int,
    card: ModelCard,
) -> SegmentationModule:
    """What the trainer trains: network, schedule, loss and random changes.

    Args:
        settings: of the run.
        cohort: the cases, for what a flip may exchange.
        anatomy: the network, with the weights it starts from.
        schedule: which block trains when.
        steps_per_epoch: optimiser steps of an epoch.
        card: what checkpoints say of themselves.
    """
    return SegmentationModule(
        anatomy,
        schedule,
        steps_per_epoch,
        card.classes,
        build_loss(
            settings.models.loss,
            weights_in_order(settings.models.class_weights, card.classes),
            settings.models.batch_dice,
        ),
        0.0 if settings.finetuning.regularise else settings.models.weight_decay,
        stage_augmentations(settings, cohort, schedule),
        card.window_vox,
        card.to_dict(),
    )


def stage_augmentations(
    settings: Settings, cohort: Cohort, schedule: Schedule
) -> list[BatchAugmentation | None]:
    """What changes the batches of each stage on the training device.

    Raises:
        ConfigError: a stage asks for changes of its own, and either pipeline is TorchIO's.
    """
    flips = plan_flips(settings.augmentation, cohort.classes)
    chosen = [_of_stage(settings, stage) for stage in schedule.stages]
    return [
        BatchAugmentation(one, (0,) if flips.allowed else (), flips.partners)
        if one.pipeline == "batched"
        else None
        for one in chosen
    ]


def _of_stage(settings: Settings, stage: Stage) -> AugmentationSettings:
    if stage.augmentation is None and stage.augmentation_strength == 1:
        return settings.augmentation
    name = stage.augmentation
    own = settings.augmentations[name] if name else settings.augmentation
    if "torchio_hsf" in (own.pipeline, settings.augmentation.pipeline):
        raise ConfigError(
            "HSF's TorchIO augmentation works in the loader, which does not know stages",
            fix="augmentation=mri, and stages with augmentation: none, light or mri",
        )
    return own.with_strength(stage.augmentation_strength)


def _callbacks(
    settings: Settings,
    run: RunFolder,
    anatomy: Anatomy,
    schedule: Schedule,
    card: ModelCard,
    baseline: float | None,
) -> list[Callback]:
    tuning = settings.finetuning
    average = None if tuning.ema_decay is None else WarmAverage(tuning.ema_decay)
    *best, last = checkpoint_callbacks(run.checkpoints)
    around: list[Callback] = [
        Heartbeat(console.console, baseline),
        ScheduleLogger(block_sizes(anatomy), baseline),
        Cost(),
        MetricsCsv(run.file("metrics.csv")),
        Preview(run.file("preview.png"), card.classes),
        Stages(
            schedule,
            run.checkpoints / "stage.ckpt",
            average,
            reset=settings.reset,
            longer=run.longer is not None,
        ),
        *(best if tuning.budget != "fixed" else ()),
        last,
    ]
    if tuning.divergence_share is not None:
        around.append(DivergenceGuard(console.console, tuning.divergence_share))
    if tuning.regularise == "l2sp":
        around.append(TowardsStart(tuning.l2sp_strength, run.checkpoints / "start.ckpt"))
    # The average comes last, so that it averages what the others made of the weights.
    return around if average is None else [*around, average]
