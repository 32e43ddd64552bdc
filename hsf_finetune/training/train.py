"""The training of a run: trainer, module, callbacks and augmentation, put together."""

from __future__ import annotations

from dataclasses import dataclass

from lightning.pytorch.callbacks import Callback

from hsf_finetune.config.settings import AugmentationSettings, Settings
from hsf_finetune.data.augment.batch_augmentation import BatchAugmentation
from hsf_finetune.data.augment.flips import FlipPlan, plan_flips
from hsf_finetune.data.augment.mixing import BatchMixing
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.schedule.stages import Schedule, Stage
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import RunFolder
from hsf_finetune.training.averaging import AveragedWeights
from hsf_finetune.training.callbacks import DivergenceCheck, ScheduleLogger, TrainingProgress
from hsf_finetune.training.distillation import OldClassesTeacher
from hsf_finetune.training.l2sp import L2SPRegulariser
from hsf_finetune.training.losses import LabelSetLoss, weights_in_order
from hsf_finetune.training.metrics_file import MetricsCsv
from hsf_finetune.training.module import Objective, SegmentationModule
from hsf_finetune.training.parameter_groups import block_sizes
from hsf_finetune.training.stage_control import StageControl
from hsf_finetune.training.trainer import (
    check_trainer,
    checkpoint_callbacks,
    keep_last,
    make_trainer,
    run_trainer,
)
from hsf_finetune.training.training_cost import CostRecorder
from hsf_finetune.training.validation_picture import ValidationPicture


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, and how.

    Args:
        settings: of the run.
        cohort: the cases, whose class names decide about flips.
        anatomy: the network, with the weights it starts from.
        schedule: which block trains when.
        card: description of the model, which checkpoints contain.
        old_groups: channels that mean one class of the source together, for
            `finetuning.keep_old`; empty in a run that is resumed.
    """

    settings: Settings
    cohort: Cohort
    anatomy: Anatomy
    schedule: Schedule
    card: ModelCard
    old_groups: tuple[tuple[int, ...], ...] = ()


def check_training_job(job: TrainingJob) -> None:
    """Refuses settings of a job that would stop its training, before a voxel is read.

    Raises:
        ConfigError: the trainer refuses its settings on this machine, or volumes are to be
            mixed in batches of one.
    """
    check_trainer(job.settings, job.schedule.max_epochs)
    if job.settings.datasets.batch_size == 1 and any(_mixings(job)):
        raise ConfigError(
            "mixup and CutMix mix the volumes of a batch, and batches have one",
            found="augmentation.mixup_p or cutmix_p above 0, and datasets.batch_size=1",
            fix="datasets.batch_size=2 or more, or augmentation.mixup_p=0 augmentation.cutmix_p=0",
        )


def fit_model(
    job: TrainingJob, run: RunFolder, data: CasesDataModule, baseline: float | None
) -> None:
    """Trains the network of a job, in place.

    Args:
        job: what is trained.
        run: the folder to write to.
        data: loaders, whose cases are read.
        baseline: mean validation Dice of the model it starts from; None if there is none.
    """
    settings, tuning = job.settings, job.settings.finetuning
    engine, epochs = settings.lightning, job.schedule.max_epochs
    callbacks = _callbacks(job, run, baseline)
    # Decided by the settings, so that all processes agree: only the main one has a baseline.
    check_before = settings.weights.pretrained != "none" and bool(tuning.divergence_share)
    trainer = make_trainer(engine, settings.logger, run.path, epochs, callbacks, check_before)
    steps = data.steps_per_epoch(trainer.world_size, engine.accumulate_grad_batches)
    module = build_module(job, steps, data.flips, trainer.world_size)
    run_trainer(trainer, module, data, run.last)
    if tuning.budget == "fixed" and trainer.is_global_zero:
        keep_last(run.checkpoints)


def build_module(
    job: TrainingJob, steps_per_epoch: int, flips: FlipPlan | None = None, processes: int = 1
) -> SegmentationModule:
    """What the trainer trains: network, schedule, loss and augmentation.

    Args:
        job: what is trained.
        steps_per_epoch: optimiser steps of an epoch.
        flips: of the augmentation; None decides by the class names alone.
        processes: that train together.
    """
    models = job.settings.models
    class_weights = weights_in_order(models.class_weights, job.card.classes)
    loss = LabelSetLoss(
        models.loss, class_weights, models.batch_dice, processes > 1, models.label_smoothing
    )
    weight_decay = 0.0 if job.settings.finetuning.regularise else models.weight_decay
    objective = Objective(loss, weight_decay, build_augmentations(job, flips), _mixings(job))
    return SegmentationModule(job.anatomy, job.schedule, steps_per_epoch, objective, job.card)


def build_augmentations(
    job: TrainingJob, flips: FlipPlan | None = None
) -> tuple[BatchAugmentation | None, ...]:
    """The augmentation of batches on the training device in each stage; None is none."""
    flips = flips or plan_flips(job.settings.augmentation, job.cohort.classes)
    axes = (0,) if flips.allowed else ()
    scaled = any(one.kind != "zscore" for one in job.card.preprocessing.intensity)
    return tuple(
        BatchAugmentation(one, axes, flips.partners, scaled) if one.pipeline == "batched" else None
        for one in (_stage_settings(job.settings, stage) for stage in job.schedule.stages)
    )


def _mixings(job: TrainingJob) -> tuple[BatchMixing | None, ...]:
    """Mixup and CutMix in each stage; None is neither."""
    stages = [_stage_settings(job.settings, stage) for stage in job.schedule.stages]
    return tuple(BatchMixing(one) if one.mixup_p or one.cutmix_p else None for one in stages)


def _stage_settings(settings: Settings, stage: Stage) -> AugmentationSettings:
    name = stage.augmentation
    if name is None and stage.augmentation_strength == 1:
        return settings.augmentation
    augmentation = settings.augmentations[name] if name else settings.augmentation
    return augmentation.with_strength(stage.augmentation_strength)


def _callbacks(job: TrainingJob, run: RunFolder, baseline: float | None) -> list[Callback]:
    tuning = job.settings.finetuning
    average = None if tuning.ema_decay is None else AveragedWeights(tuning.ema_decay)
    *best, last = checkpoint_callbacks(run.checkpoints)
    kept = run.checkpoints / "stage.ckpt"
    callbacks: list[Callback] = [
        TrainingProgress(console.console, baseline),
        ScheduleLogger(block_sizes(job.anatomy), baseline),
        CostRecorder(),
        MetricsCsv(run.file("metrics.csv")),
        ValidationPicture(run.file("preview.png"), job.card.classes, job.card.label_rows),
        StageControl(job.schedule, kept, average, job.settings.reset, run.longer is not None),
        *(best if tuning.budget != "fixed" else ()),
        last,
    ]
    if tuning.divergence_share is not None:
        callbacks.append(DivergenceCheck(console.console, tuning.divergence_share))
    if tuning.regularise == "l2sp":
        callbacks.append(L2SPRegulariser(tuning.l2sp_strength, run.checkpoints / "start.ckpt"))
    if tuning.keep_old is not None:
        callbacks.append(
            OldClassesTeacher(
                job.old_groups,
                tuning.keep_old_strength,
                run.checkpoints / "teacher.ckpt",
                everywhere=tuning.keep_old == "everywhere",
            )
        )
    # The average comes last, so that it averages the weights after the other callbacks.
    return callbacks if average is None else [*callbacks, average]
