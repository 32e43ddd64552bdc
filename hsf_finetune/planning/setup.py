"""A run as it is going to be: one value, made by one function, that all else starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import RenderableType
from rich.text import Text

from hsf_finetune.check.check_data import check_before_training
from hsf_finetune.check.check_report import CheckReport
from hsf_finetune.config.settings import (
    DatasetsSettings,
    Preprocessing,
    PretrainedSettings,
    Settings,
)
from hsf_finetune.data.augment.flips import FlipPlan, plan_flips
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.preprocessing.choose_preprocessing import (
    KnownPreprocessing,
    PreprocessingChoice,
    choose_preprocessing,
)
from hsf_finetune.data.splits import Split, first_fold, fold_count, split_cases
from hsf_finetune.evaluation.known_cases import source_trained_on
from hsf_finetune.inference.model_card import ModelCard, common_geometry, known_origin
from hsf_finetune.inference.predictor import pick_device
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.axis_order import AxisOrder
from hsf_finetune.networks.layers.strides import triple
from hsf_finetune.planning.budget import make_schedule, settings_of_folds, with_budget
from hsf_finetune.planning.forecast import Forecast
from hsf_finetune.planning.old_classes import find_old_groups
from hsf_finetune.planning.phantom_source import phantom_source_folder, starts_from_phantom_source
from hsf_finetune.planning.source_model import SourceTask, find_source_task
from hsf_finetune.planning.start import (
    TransferResult,
    build_network,
    find_weights,
    load_weights,
)
from hsf_finetune.planning.training_colours import training_colours
from hsf_finetune.planning.unlabelled import UnlabelledScans, find_unlabelled
from hsf_finetune.schedule.display.schedule_table import schedule_table
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.system import console
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.processes import is_main_process
from hsf_finetune.system.run_folder import SPLITS, RunFolder, epochs_done, has_ended
from hsf_finetune.training.parameter_groups import block_sizes
from hsf_finetune.training.train import TrainingJob, check_training_job
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.given_weights import PretrainedWeights, with_recorded_network


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
        prepared: how scans are prepared, and where each part of it comes from.
        transfer: the pretrained weights and what became of them; None for random weights,
            and for a run that is resumed from a checkpoint of its own.
        report: of the check of the data; None where they were not checked.
        source_task: cases of the source's own task, to see what is forgotten; None if there
            are none.
        resumed: folder of the run that is resumed; None for a new one.
        forecast: of memory and time; None where none was made. Of self-training it is that of
            the teacher.
        unlabelled: the scans that self-training learns from; None without it.
    """

    settings: Settings
    requested: Settings
    cohort: Cohort
    split: Split
    anatomy: Anatomy
    schedule: Schedule
    card: ModelCard
    prepared: PreprocessingChoice
    transfer: TransferResult | None = None
    report: CheckReport | None = None
    source_task: SourceTask | None = None
    resumed: RunFolder | None = None
    forecast: Forecast | None = None
    unlabelled: UnlabelledScans | None = None

    @property
    def job(self) -> TrainingJob:
        """What training needs of it."""
        groups = find_old_groups(self.settings, self.cohort, self.transfer)
        parts = (self.cohort, self.anatomy, self.schedule, self.card)
        return TrainingJob(self.settings, *parts, groups)

    @property
    def device(self) -> torch.device:
        """Where networks are evaluated outside of training."""
        return pick_device("cpu" if self.settings.lightning.accelerator == "cpu" else "auto")

    def tables(self) -> list[RenderableType]:
        """What became of the weights, which block trains when, and the forecast, as shown."""
        folds = fold_count(self.cohort.cases, self.settings.datasets)
        each = [f"  for each of {folds + 1} runs: {folds} folds and a final model"] if folds else []
        return [
            *([self.transfer.receipt.table()] if self.transfer else []),
            self.prepared.table(),
            *map(Text, self.prepared.warnings),
            *map(Text, self._source_notes()),
            schedule_table(self.schedule, block_sizes(self.anatomy)),
            *([*self.forecast.lines(), *each] if self.forecast else []),
            *(self.unlabelled.lines() if self.unlabelled else []),
            *(
                self.unlabelled.plan(self.settings, len(self.split.train), folds)
                if self.unlabelled
                else []
            ),
        ]

    def _source_notes(self) -> Iterator[str]:
        """Which scored cases the source model has seen, so that it is not new to them."""
        for side in ("validation", "test"):
            if note := self.split.note_source(side):
                count = count_of(len(self.split.side(side)), f"{side} case")
                yield f"warning: {count}{note}: their scores are no measure of new scans"

    def with_sides(self, flips: FlipPlan) -> Setup:
        """The same where training mirrors scans from left to right, or does not."""
        prepared = self.prepared.with_sides(flips.allowed)
        partners = flips.partners or tuple(range(len(self.card.classes)))
        card = replace(self.card, preprocessing=prepared.value)
        card = replace(card, partners=partners if flips.allowed else None)
        return replace(self, prepared=prepared, card=card)

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
        decided = _with_patch(decided, self.prepared.value)
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
        preview: read next to no voxels (all cases for `preprocessing=nnunet`, two to compare
            them with what the weights are for): the data are not checked, and weights that are
            not given, or that would have to be trained first, are left out.

    Returns:
        The setup; patches and batches that are `auto` are still to be decided by
        `planning.auto_sizes.with_sizes`.

    Raises:
        UserError: data, weights and settings do not fit together.
    """
    requested = settings
    folds = fold_count(cohort.cases, settings.datasets)
    settings = (settings_of_folds if folds else with_budget)(settings, cohort.cases)
    split = split_cases(cohort.cases, _split_settings(settings, cohort, resumed), settings.seed)
    last = resumed.last if resumed else None
    source = None
    if last is None and not (preview and _is_without_weights(settings)):
        source = read_weights(settings, cohort)
    weights = source.checkpoint if source else None
    recorded = read_checkpoint(last) if last else None
    settings = with_recorded_network(settings, weights or recorded)
    anatomy = build_network(settings, cohort)
    schedule = make_schedule(settings, anatomy)
    _check_epochs_left(settings, schedule, resumed)
    if last is None:
        scored = (*split.validation, *split.test)
        known = source_trained_on(weights.path, scored) if weights else ()
        split = replace(split, source_trained=known)
    transfer = load_weights(settings, anatomy, cohort, source) if source else None
    prepared = _prepare_scans(settings, cohort, split, anatomy, (weights, recorded))
    settings = _with_patch(settings, prepared.value)
    card = _make_card(settings, cohort, prepared.value, _origin_of(transfer, recorded))
    setup = Setup(settings, requested, cohort, split, anatomy, schedule, card, prepared, transfer)
    task = find_source_task(settings, cohort, transfer, resumed)
    check_training_job(setup.job)
    report = None
    if not preview:
        report = check_before_training(settings, cohort, split, weights, prepared.value)
    card = replace(card, data=report.target) if report else card
    unlabelled = None
    if settings.finetuning.selftrain is not None:
        unlabelled = find_unlabelled(settings.datasets, cohort, split)
    setup = replace(setup, unlabelled=unlabelled)
    return replace(setup, card=card, source_task=task, resumed=resumed, report=report)


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


def _check_epochs_left(settings: Settings, schedule: Schedule, resumed: RunFolder | None) -> None:
    """Refuses to resume a run whose schedule leaves no epoch to train."""
    done = epochs_done(resumed.path) if resumed and "epoch" not in settings.reset else 0
    if resumed and 0 < schedule.max_epochs <= done and has_ended(resumed.path):
        raise ConfigError(
            f"the schedule ends after {count_of(schedule.max_epochs, 'epoch')}, which the run has "
            "behind it",
            file=resumed.path,
            found="; ".join(schedule.remarks) or None,
            fix="start a new run from its weights: finetuning.pretrained=RUN",
        )


def _is_without_weights(settings: Settings) -> bool:
    """Whether no weights are given, or only those of a phantom model that is not trained yet."""
    if starts_from_phantom_source(settings):
        return not has_ended(phantom_source_folder(settings))
    given = settings.weights.pretrained is not None
    return not given and not isinstance(settings.models, PretrainedSettings)


def _prepare_scans(
    settings: Settings,
    cohort: Cohort,
    split: Split,
    anatomy: Anatomy,
    known: tuple[Checkpoint | None, Checkpoint | None],
) -> PreprocessingChoice:
    """How scans are prepared; `known` are the pretrained weights, and the run that is resumed."""
    weights, resumed = known
    prepared = choose_preprocessing(
        settings,
        split.train,
        cohort.channels,
        KnownPreprocessing(
            weights.preprocessing if weights else None,
            resumed.preprocessing if resumed else None,
            weights.channel_names if weights else None,
        ),
    )
    side = getattr(settings.models, "image_size", None)
    axes = AxisOrder(getattr(settings.models, "orientation", "RAS"))
    learned = axes.along_image(triple(side)) if side else None
    prepared = prepared.for_network(anatomy.divisor, learned)
    return prepared.with_sides(plan_flips(settings.augmentation, cohort.classes).allowed)


def _origin_of(transfer: TransferResult | None, resumed: Checkpoint | None) -> Mapping[str, Any]:
    """The origin of pretrained weights: a run that is resumed keeps what it wrote down."""
    if transfer:
        return transfer.receipt.origin
    return ((resumed.meta if resumed else None) or {}).get("origin") or {}


def _with_patch(settings: Settings, preprocessing: Preprocessing) -> Settings:
    """The settings with patches as chosen; `auto` is still to be decided."""
    if settings.datasets.patch_vox == "auto" or preprocessing.patch_vox is None:
        return settings
    data = settings.datasets.model_copy(update={"patch_vox": list(preprocessing.patch_vox)})
    return settings.model_copy(update={"datasets": data})


def _make_card(
    settings: Settings, cohort: Cohort, preprocessing: Preprocessing, origin: Mapping[str, Any]
) -> ModelCard:
    return ModelCard(
        classes=cohort.classes.names,
        label_values=cohort.label_values,
        models=settings.models,
        in_channels=cohort.channels,
        preprocessing=preprocessing,
        hdf5=common_geometry(settings.datasets.datasets.values()),
        colours=training_colours(settings.datasets, cohort),
        origin=known_origin(origin),
    )
