"""The only place where the parts meet: discover, split, build, transfer, plan, fit, compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from hsf_finetune.check.check_run import check_before_training
from hsf_finetune.config.settings import PretrainedSettings, Settings
from hsf_finetune.data.augment.flips import plan_flips
from hsf_finetune.data.augment.torchio_hsf import hsf_pipeline
from hsf_finetune.data.census import Census, check_census, write_census
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.ledger import write_ledger
from hsf_finetune.data.loading.datamodule import Augment, CasesDataModule
from hsf_finetune.data.phantom.write_phantoms import write_cohort
from hsf_finetune.data.splits import Split, fold_count, split_cases
from hsf_finetune.evaluation.finished_runs import write_result
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import ScoreRow, read_scores, summarise, write_scores
from hsf_finetune.experiment import summary
from hsf_finetune.experiment.child_runs import make_run
from hsf_finetune.experiment.folds import first_fold, run_folds
from hsf_finetune.experiment.retention import classes_of, old_task, recall, remember
from hsf_finetune.inference.predictor import ModelCard, Predictor, pick_device
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.planning.budget import planned, with_budget
from hsf_finetune.planning.dry_run import DryRun
from hsf_finetune.planning.forecast import show_forecast
from hsf_finetune.planning.memory import sized
from hsf_finetune.planning.phantom_source import phantom_source_settings
from hsf_finetune.planning.start import (
    Source,
    Start,
    build_network,
    find_source,
    model_card,
    smoke_test,
    start_from,
    with_network,
)
from hsf_finetune.schedule.display.schedule_picture import save_picture
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.system import console
from hsf_finetune.system.files import write_json
from hsf_finetune.system.processes import is_main_process
from hsf_finetune.system.run_folder import (
    RunFolder,
    call_in,
    calling_back,
    find_run,
    has_ended,
    open_run,
)
from hsf_finetune.training.train import train
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint


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
    with calling_back(settings):
        return _execute(settings)


def _execute(settings: Settings) -> Result:
    if settings.lightning.threads:
        torch.set_num_threads(settings.lightning.threads)
    asked, earlier = settings, find_run(settings)
    make_data(settings)
    cohort = discover(settings.datasets, settings.models)
    folds = fold_count(cohort.cases, settings.datasets)
    settings = with_budget(settings, cohort.cases)
    if folds is not None:
        pooled = run_folds(asked, settings, cohort.cases, folds, earlier, execute)
        return Result(pooled.folder, pooled.before, pooled.after)
    split = split_cases(cohort.cases, settings.datasets, settings.seed)
    last = earlier.last if earlier else None
    source = None if last else pretrained_source(settings, cohort)
    checked = check_before_training(settings, cohort, split, source.checkpoint if source else None)
    settings = with_network(settings, _recorded(settings, source, last))
    anatomy = build_network(settings, cohort)
    schedule = planned(settings, anatomy)
    start = start_from(settings, anatomy, cohort, source) if source else None
    card = model_card(settings, cohort, anatomy, checked.here if checked else None)
    settings = sized(DryRun(settings, cohort, anatomy, schedule, card), split, earlier)
    task = old_task(settings, cohort, classes_of(source, earlier))
    data = data_module(settings, cohort, split, anatomy)
    with console.progress("reading cases") as tick:
        kept_in = data.read(tick)
    census = data.censuses()
    check_census(census["train"], settings.datasets.allow_unsupervised)
    run = open_run(asked, earlier)
    before: tuple[ScoreRow, ...] = ()
    if is_main_process():
        summary.announce(run, cohort, split, kept_in, settings.reset)
        summary.show_labels(
            census["train"], plan_flips(settings.augmentation, cohort.classes), data.draws
        )
        _write_down(run, cohort, split, schedule, census)
        if checked:
            write_json(run.file("check.json"), checked.to_dict())
        summary.show_plan(anatomy, schedule, start.receipt if start else None)
        show_forecast(DryRun(settings, cohort, anatomy, schedule, card), split, run, data)
        if start:
            _show_transfer(settings, run, cohort, split, anatomy, start, card)
        before = _score_before(settings, run, anatomy, card, split, start)
        if task and start:
            remember(task, settings, run, cohort, start, card, _device(settings))
    baseline = summarise(before)[-1].dice.mean if before else None
    if is_main_process():
        call_in(run, settings)
    train(settings, run, cohort, anatomy, schedule, data, card, baseline)
    if not is_main_process():
        return Result(run.path, (), ())
    after = _score_after(settings, run, split)
    summary.conclude(run, before, after, split)
    retained = recall(task, run, _device(settings)) if task else None
    kept = {"retention": retained} if retained else {}
    write_result(run.path, before, after, settings.finetuning.budget, **kept)
    return Result(run.path, before, after)


def preview_plan(
    settings: Settings, picture: Path | None = None, *, forecast: bool = False
) -> Schedule:
    """Shows the schedule that a run would have, without reading a voxel.

    Args:
        settings: of the run.
        picture: PNG, PDF or SVG to write; None writes nothing.
        forecast: also make a few dry steps, and say what the run takes in memory and time.

    Raises:
        UserError: the cases, the network or the schedule do not fit together, or the
            picture cannot be written.
    """
    make_data(settings)
    cohort = discover(settings.datasets, settings.models)
    if isinstance(settings.models, PretrainedSettings):
        source = pretrained_source(settings, cohort)
        settings = with_network(settings, source.checkpoint if source else None)
    anatomy = build_network(settings, cohort)
    settings = with_budget(settings, cohort.cases)
    schedule = planned(settings, anatomy)
    summary.show_plan(anatomy, schedule, None)
    if forecast:
        if settings.lightning.threads:
            torch.set_num_threads(settings.lightning.threads)
        split = split_cases(cohort.cases, first_fold(cohort.cases, settings), settings.seed)
        dry = DryRun(settings, cohort, anatomy, schedule, model_card(settings, cohort, anatomy))
        show_forecast(replace(dry, settings=sized(dry, split, None)), split)
    if picture is not None:
        save_picture(schedule, picture)
        console.say(f"the picture is in {picture}")
    return schedule


def make_data(settings: Settings) -> None:
    """Makes the phantom cohort, where the datasets ask for it and it is not there."""
    if settings.datasets.generate == "phantom":
        folder = Path(settings.datasets.main_path).expanduser()
        with console.progress(f"phantom cohort in {folder}") as tick:
            write_cohort(folder, progress=tick)


# -------------------------------------------------------------------- internals
def train_phantom_source(settings: Settings) -> Path:
    """The run folder of the phantom source model, which is trained if it is not there."""
    source = phantom_source_settings(settings)
    folder = Path(str(source.run_dir))
    if not has_ended(folder):
        console.say(f"training the phantom source model once (kept in {folder})")
        make_run(source, folder, execute)
        console.say("the phantom source model is ready\n")
    return folder


def data_module(
    settings: Settings, cohort: Cohort, split: Split, anatomy: Anatomy
) -> CasesDataModule:
    """The loaders of a run; its cases are not read yet."""
    augment: Augment | None = None
    if settings.augmentation.pipeline == "torchio_hsf":
        flips = plan_flips(settings.augmentation, cohort.classes)
        augment = hsf_pipeline(flips.allowed, flips.partners)
    return CasesDataModule(split, settings.datasets, anatomy.divisor, settings.seed, augment)


def pretrained_source(settings: Settings, cohort: Cohort) -> Source | None:
    """The weights that the settings ask for, fetched with a progress bar."""
    say = console.say if is_main_process() else (lambda line: None)
    with console.download("fetching weights") as tick:
        return find_source(settings, cohort, lambda: train_phantom_source(settings), tick, say)


def _recorded(settings: Settings, source: Source | None, last: Path | None) -> Checkpoint | None:
    """The checkpoint that may tell the network: a resumed run's own, or the source."""
    if last is not None and isinstance(settings.models, PretrainedSettings):
        return read_checkpoint(last)
    return source.checkpoint if source else None


def _write_down(
    run: RunFolder,
    cohort: Cohort,
    split: Split,
    schedule: Schedule,
    census: Mapping[str, Census],
) -> None:
    write_json(run.file("splits.json"), split.to_dict())
    write_ledger(run.file("ledger.csv"), cohort, split)
    write_census(run.file("census.csv"), census)
    write_json(run.file("schedule.json"), schedule.to_dict())
    save_picture(schedule, run.file("schedule.png"))


def _show_transfer(
    settings: Settings,
    run: RunFolder,
    cohort: Cohort,
    split: Split,
    anatomy: Anatomy,
    start: Start,
    card: ModelCard,
) -> None:
    """Proves on one case that the new head says what the old one did, and keeps the receipt."""
    found = smoke_test(
        settings, cohort, anatomy, start, card, split.validation[0], _device(settings)
    )
    for line in found.lines() if found else ():
        console.say(line)
    smoke = asdict(found) if found else None
    write_json(run.file("transfer.json"), {**start.receipt.to_dict(), "smoke": smoke})


def _score_before(
    settings: Settings,
    run: RunFolder,
    anatomy: Anatomy,
    card: ModelCard,
    split: Split,
    start: Start | None,
) -> tuple[ScoreRow, ...]:
    """Scores of the model we start from, which a resumed run reads back."""
    path = run.file("pretrained_scores.csv")
    if start is None:
        return tuple(read_scores(path)) if path.exists() else ()
    predictor = Predictor(anatomy, card, _device(settings))
    if split.test:
        file = run.file("pretrained_test_scores.csv")
        _scored(predictor, split, "scoring the pretrained model on test cases", file, "test")
    return _scored(predictor, split, "scoring the pretrained model", path)


def _score_after(settings: Settings, run: RunFolder, split: Split) -> tuple[ScoreRow, ...]:
    """Scores of the best epoch on validation, and on test cases where there are any."""
    predictor = Predictor.load(run.path, "best", str(_device(settings)))
    after = _scored(predictor, split, "scoring the model", run.file("validation_scores.csv"))
    if split.test:
        _scored(predictor, split, "scoring the test cases", run.file("test_scores.csv"), "test")
    return after


def _scored(
    predictor: Predictor, split: Split, what: str, path: Path, side: str = "validation"
) -> tuple[ScoreRow, ...]:
    with console.progress(what) as tick:
        rows = score_cases(predictor, split.side(side), progress=tick)
    write_scores(path, rows)
    return tuple(rows)


def _device(settings: Settings) -> torch.device:
    return pick_device("cpu" if settings.lightning.accelerator == "cpu" else "auto")
