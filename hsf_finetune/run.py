"""The only place where the parts meet: discover, split, build, transfer, plan, fit, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hsf_finetune import demo, screen
from hsf_finetune.data.augmentation import BatchAugmentation
from hsf_finetune.data.cases import Cohort, discover
from hsf_finetune.data.datamodule import Augment, CasesDataModule
from hsf_finetune.data.ledger import write_ledger
from hsf_finetune.data.phantom import write_cohort
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.data.torchio_hsf import hsf_pipeline
from hsf_finetune.evaluation.compare import score_cases
from hsf_finetune.evaluation.tables import ScoreRow, read_scores, summarise, write_scores
from hsf_finetune.files import write_json
from hsf_finetune.inference.predictor import ModelCard, Predictor, pick_device
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.run_folder import RunFolder, find_run, follower, new_run
from hsf_finetune.schedule.schedule import Schedule
from hsf_finetune.schedule.strategies import plan
from hsf_finetune.settings import Settings
from hsf_finetune.starting_point import build_network, load_weights
from hsf_finetune.training.callbacks import Heartbeat, ScheduleLogger, StopWhenFlat, WarmAverage
from hsf_finetune.training.fit import checkpoint_callbacks, fit, make_trainer
from hsf_finetune.training.history import MetricsCsv
from hsf_finetune.training.losses import build_loss
from hsf_finetune.training.module import SegmentationModule
from hsf_finetune.training.preview import Preview
from hsf_finetune.weights.receipt import Receipt


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Args:
        folder: everything it wrote.
        before: validation scores of the model it started from; empty for random weights.
        after: validation scores of its best epoch.
    """

    folder: Path
    before: tuple[ScoreRow, ...]
    after: tuple[ScoreRow, ...]


def execute(settings: Settings) -> Result:
    """Trains, or fine-tunes, as the settings say, and scores the model before and after.

    Nothing is written before the data, the weights and the schedule are known to fit.

    Raises:
        UserError: anything the user can mend.
    """
    if settings.lightning.threads:
        torch.set_num_threads(settings.lightning.threads)
    earlier = find_run(settings)
    make_data(settings)
    cohort = discover(settings.datasets)
    split = split_cases(cohort.cases, settings.datasets, settings.seed)
    anatomy = build_network(settings, cohort)
    schedule = plan(anatomy, settings.finetuning, settings.models, settings.lightning)
    data = _data_module(settings, cohort, split, anatomy)
    with screen.progress("reading cases") as tick:
        kept_in = data.read(tick)
    resume_from = earlier.last if earlier else None
    receipt = (
        None
        if resume_from
        else load_weights(settings, anatomy, cohort, lambda: _demo_source(settings))
    )
    run = earlier or new_run(settings)
    card = _card(settings, cohort, data)
    before: tuple[ScoreRow, ...] = ()
    if not follower():
        screen.announce(run, cohort, split, kept_in, resume_from)
        _write_down(run, cohort, split, schedule, receipt)
        screen.show_plan(anatomy, schedule, receipt)
        before = _score_before(settings, run, anatomy, card, split, receipt)
    augmentation = _batch_augmentation(settings, cohort)
    _train(settings, run, anatomy, schedule, data, card, augmentation, before, resume_from)
    if follower():
        return Result(run.path, (), ())
    after = _score_after(settings, run, split)
    _write_result(run, before, after)
    screen.conclude(run, before, after, split)
    return Result(run.path, before, after)


def preview_plan(settings: Settings) -> Schedule:
    """Shows the schedule that a run would have, without reading a voxel.

    Raises:
        UserError: the cases, the network or the schedule do not fit together.
    """
    make_data(settings)
    cohort = discover(settings.datasets)
    anatomy = build_network(settings, cohort)
    schedule = plan(anatomy, settings.finetuning, settings.models, settings.lightning)
    screen.show_plan(anatomy, schedule, None)
    return schedule


def make_data(settings: Settings) -> None:
    """Makes the phantom cohort, where the datasets ask for it and it is not there."""
    if settings.datasets.generate == "phantom":
        folder = Path(settings.datasets.main_path).expanduser()
        with screen.progress(f"phantom cohort in {folder}") as tick:
            write_cohort(folder, progress=tick)


# -------------------------------------------------------------------- internals
def _demo_source(settings: Settings) -> Path:
    """The run folder of the phantom source model, which is trained if it is not there."""
    folder = demo.demo_run(settings)
    if not (folder / "result.json").exists():
        screen.say(f"training the phantom source model once (kept in {folder})")
        source = demo.source_settings(settings)
        begun = (folder / "config.yaml").exists()
        execute(source.model_copy(update={"resume": str(folder)}) if begun else source)
        screen.say("the phantom source model is ready\n")
    return folder


def _data_module(
    settings: Settings, cohort: Cohort, split: Split, anatomy: Anatomy
) -> CasesDataModule:
    augment: Augment | None = None
    if settings.augmentation.pipeline == "torchio_hsf":
        augment = hsf_pipeline(flip=_may_flip(settings, cohort))
    return CasesDataModule(split, settings.datasets, anatomy.divisor, settings.seed, augment)


def _batch_augmentation(settings: Settings, cohort: Cohort) -> BatchAugmentation | None:
    if settings.augmentation.pipeline != "batched":
        return None
    return BatchAugmentation(
        settings.augmentation, flip_axes=(0,) if _may_flip(settings, cohort) else ()
    )


def _may_flip(settings: Settings, cohort: Cohort) -> bool:
    """Whether left and right may be exchanged without a class changing its meaning."""
    flip = settings.augmentation.flip
    return not cohort.classes.has_sides if flip == "auto" else flip


def _card(settings: Settings, cohort: Cohort, data: CasesDataModule) -> ModelCard:
    spacing = settings.datasets.target_spacing_mm
    return ModelCard(
        classes=cohort.classes.names,
        label_values=cohort.cases[0].protocol.value_of(),
        models=settings.models,
        in_channels=cohort.channels,
        target_spacing_mm=tuple(spacing) if spacing else None,
        window_vox=data.window_vox,
    )


def _write_down(
    run: RunFolder, cohort: Cohort, split: Split, schedule: Schedule, receipt: Receipt | None
) -> None:
    write_json(run.file("splits.json"), split.plain())
    write_ledger(run.file("ledger.csv"), cohort, split)
    write_json(run.file("schedule.json"), schedule.plain())
    if receipt:
        write_json(run.file("transfer.json"), receipt.plain())


def _score_before(
    settings: Settings,
    run: RunFolder,
    anatomy: Anatomy,
    card: ModelCard,
    split: Split,
    receipt: Receipt | None,
) -> tuple[ScoreRow, ...]:
    """Scores of the model we start from, which a resumed run reads back."""
    path = run.file("pretrained_scores.csv")
    if receipt is None:
        return tuple(read_scores(path)) if path.exists() else ()
    predictor = Predictor(anatomy, card, _device(settings))
    return _scored(predictor, split, "scoring the pretrained model", path)


def _score_after(settings: Settings, run: RunFolder, split: Split) -> tuple[ScoreRow, ...]:
    """Scores of the best epoch on validation, and on test cases where there are any."""
    predictor = Predictor.load(run.path, "best", str(_device(settings)))
    after = _scored(predictor, split, "scoring the best epoch", run.file("validation_scores.csv"))
    if split.test:
        _scored(predictor, split, "scoring the test cases", run.file("test_scores.csv"), "test")
    return after


def _scored(
    predictor: Predictor, split: Split, what: str, path: Path, side: str = "validation"
) -> tuple[ScoreRow, ...]:
    with screen.progress(what) as tick:
        rows = score_cases(predictor, split.side(side), progress=tick)
    write_scores(path, rows)
    return tuple(rows)


def _device(settings: Settings) -> torch.device:
    return pick_device("cpu" if settings.lightning.accelerator == "cpu" else "auto")


def _train(
    settings: Settings,
    run: RunFolder,
    anatomy: Anatomy,
    schedule: Schedule,
    data: CasesDataModule,
    card: ModelCard,
    augmentation: BatchAugmentation | None,
    before: Sequence[ScoreRow],
    resume_from: Path | None,
) -> None:
    tuning, engine = settings.finetuning, settings.lightning
    baseline = summarise(before)[-1].dice.mean if before else None
    parameters = {block.name: block.size for block in anatomy.blocks}
    around = [
        Heartbeat(screen.console, schedule, baseline),
        ScheduleLogger(schedule, parameters, baseline),
        MetricsCsv(run.file("metrics.csv")),
        Preview(run.file("preview.png"), card.classes, schedule.max_epochs),
        *checkpoint_callbacks(run.checkpoints),
    ]
    if tuning.ema_decay is not None:
        around.append(WarmAverage(tuning.ema_decay))
    if tuning.early_stopping_epochs is not None:
        around.append(StopWhenFlat(tuning.early_stopping_epochs, schedule.last_thaw))
    trainer = make_trainer(engine, settings.logger, run.path, schedule.max_epochs, around)
    module = SegmentationModule(
        anatomy,
        schedule,
        data.steps_per_epoch(trainer.world_size, engine.accumulate_grad_batches),
        card.classes,
        build_loss(settings.models.loss),
        settings.models.weight_decay,
        augmentation,
        data.window_vox,
        card.plain(),
    )
    fit(trainer, module, data, resume_from)


def _write_result(run: RunFolder, before: Sequence[ScoreRow], after: Sequence[ScoreRow]) -> None:
    """Writes result.json, whose presence says that the run has ended."""
    write_json(
        run.result,
        {
            "pretrained": [asdict(s) for s in summarise(before)],
            "best_epoch": [asdict(s) for s in summarise(after)],
        },
    )
