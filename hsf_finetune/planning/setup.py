"""A run as it is going to be: one value, made by one function, that all else starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from rich.console import RenderableType

from hsf_finetune.check.check_data import check_before_training
from hsf_finetune.check.check_report import CheckReport
from hsf_finetune.config.settings import DatasetsSettings, PretrainedSettings, Settings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.splits import Split, first_fold, split_cases
from hsf_finetune.inference.model_card import ModelCard, common_geometry
from hsf_finetune.inference.predictor import pick_device
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning.budget import make_schedule, with_budget
from hsf_finetune.planning.forecast import Forecast
from hsf_finetune.planning.phantom_source import phantom_source_folder, starts_from_phantom_source
from hsf_finetune.planning.source_model import SourceTask, find_source_task
from hsf_finetune.planning.start import (
    PretrainedWeights,
    TransferResult,
    build_network,
    find_weights,
    load_weights,
    with_recorded_network,
)
from hsf_finetune.schedule.display.schedule_table import schedule_table
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.system import console
from hsf_finetune.system.processes import is_main_process
from hsf_finetune.system.run_folder import SPLITS, RunFolder, has_ended
from hsf_finetune.training.parameter_groups import block_sizes
from hsf_finetune.training.train import TrainingJob, check_training_job
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint


@dataclass(frozen=True)
class Setup:
    """Everything that is decided before the first step of a run.

    Args:
        settings: of the run, with what was left open in them decided: budget, network, sizes.
        requested: the same as the user gave them.
        cohort: the cases, their classes and channels.
        split: who trains, who validates.
        anatomy: the network, with the weights it starts from.
        schedule: which block trains when, at which rate.
        card: what the model will say of itself.
        transfer: the pretrained weights and what became of them; None for random weights,
            and for a run that is resumed from a checkpoint of its own.
        report: of the check of the data; None where they were not checked.
        source_task: cases of the source's own task, to see what is forgotten; None if there
            are none.
        resumed: folder of the run that is resumed; None for a new one.
        forecast: of memory and time; None where none was made.
    """

    settings: Settings
    requested: Settings
    cohort: Cohort
    split: Split
    anatomy: Anatomy
    schedule: Schedule
    card: ModelCard
    transfer: TransferResult | None = None
    report: CheckReport | None = None
    source_task: SourceTask | None = None
    resumed: RunFolder | None = None
    forecast: Forecast | None = None

    @property
    def job(self) -> TrainingJob:
        """What training needs of it."""
        return TrainingJob(self.settings, self.cohort, self.anatomy, self.schedule, self.card)

    @property
    def device(self) -> torch.device:
        """Where networks are evaluated outside of training."""
        return pick_device("cpu" if self.settings.lightning.accelerator == "cpu" else "auto")

    def tables(self) -> list[RenderableType]:
        """What became of the weights, which block trains when, and the forecast, as shown."""
        return [
            *([self.transfer.receipt.table()] if self.transfer else []),
            schedule_table(self.schedule, block_sizes(self.anatomy)),
            *(self.forecast.lines() if self.forecast else []),
        ]

    def _repr_html_(self) -> str:
        return console.html_of(*self.tables())

    def with_settings(self, settings: Settings) -> Setup:
        """The same data, network and weights, trained in another way.

        Args:
            settings: that differ in `finetuning`, `augmentation` and `lightning` alone.

        Raises:
            ConfigError: the schedule does not fit the network.
        """
        decided = with_budget(settings, self.cohort.cases)
        decided = decided.model_copy(update={"models": self.settings.models})
        schedule = make_schedule(decided, self.anatomy)
        return replace(self, settings=decided, requested=settings, schedule=schedule)


def prepare(
    settings: Settings,
    cohort: Cohort,
    resumed: RunFolder | None = None,
    *,
    preview: bool = False,
) -> Setup:
    """Splits and checks the cases, reads the weights, builds the network and plans its training.

    Whatever a run would refuse is refused by this function, before anything is written.

    Args:
        settings: of the run, or of all its folds, of which the first is prepared.
        cohort: from `discover`.
        resumed: the run that is to be resumed, if any.
        preview: read no voxel: the data are not checked, and weights that are not given, or
            that would have to be trained first, are left out.

    Returns:
        The setup; patches and batches that are `auto` are still to be decided by
        `planning.auto_sizes.with_sizes`.

    Raises:
        UserError: data, weights and settings do not fit together.
    """
    requested, settings = settings, with_budget(settings, cohort.cases)
    split = split_cases(cohort.cases, _split_settings(settings, cohort, resumed), settings.seed)
    last = resumed.last if resumed else None
    source = None
    if last is None and not (preview and _is_without_weights(settings)):
        source = read_weights(settings, cohort)
    checkpoint = source.checkpoint if source else None
    report = None if preview else check_before_training(settings, cohort, split, checkpoint)
    if last is not None and isinstance(settings.models, PretrainedSettings):
        checkpoint = read_checkpoint(last)
    settings = with_recorded_network(settings, checkpoint)
    anatomy = build_network(settings, cohort)
    schedule = make_schedule(settings, anatomy)
    transfer = load_weights(settings, anatomy, cohort, source) if source else None
    card = _make_card(settings, cohort, anatomy, report.target if report else None)
    if last is not None:
        card = card.with_preprocessing_of(read_checkpoint(last).meta or {})
    setup = Setup(settings, requested, cohort, split, anatomy, schedule, card, transfer, report)
    task = find_source_task(settings, cohort, source, resumed)
    check_training_job(setup.job)
    return replace(setup, source_task=task, resumed=resumed)


def read_weights(settings: Settings, cohort: Cohort) -> PretrainedWeights | None:
    """The weights that the settings name, fetched with a progress bar."""
    say = console.say if is_main_process() else (lambda line: None)
    with console.progress("fetching weights", in_bytes=True) as tick:
        return find_weights(settings, cohort, tick, say)


def _split_settings(
    settings: Settings, cohort: Cohort, resumed: RunFolder | None
) -> DatasetsSettings:
    """What the split is made from: a run that is resumed keeps the one it wrote down."""
    if resumed is None or not resumed.file(SPLITS).exists():
        return first_fold(cohort.cases, settings.datasets)
    return settings.datasets.model_copy(update={"split_file": str(resumed.file(SPLITS))})


def _is_without_weights(settings: Settings) -> bool:
    """Whether no weights are given, or only those of a phantom model that is not trained yet."""
    if starts_from_phantom_source(settings):
        return not has_ended(phantom_source_folder(settings))
    given = settings.weights.pretrained is not None
    return not given and not isinstance(settings.models, PretrainedSettings)


def _make_card(
    settings: Settings, cohort: Cohort, anatomy: Anatomy, summary: DataSummary | None
) -> ModelCard:
    spacing, names = settings.datasets.target_spacing_mm, settings.datasets.channel_names
    return ModelCard(
        classes=cohort.classes.names,
        label_values=cohort.label_values,
        models=settings.models,
        in_channels=cohort.channels,
        target_spacing_mm=tuple(spacing) if spacing else None,
        window_vox=padded_shape(settings.datasets.window_vox, anatomy.divisor),
        channel_names=tuple(names) if names else None,
        data=summary,
        hdf5=common_geometry(settings.datasets.datasets.values()),
    )
