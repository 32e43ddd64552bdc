"""Going on from a trained model with corrected segmentations, without losing what it knew."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import (
    DatasetSettings,
    DatasetsSettings,
    FinetuningSettings,
    Settings,
    WeightsSettings,
)
from hsf_finetune.data.discovery.cases import Case, discover
from hsf_finetune.data.loading.epoch_sampler import choose_draw_weights
from hsf_finetune.data.splits import Split
from hsf_finetune.experiment.active_run import fit, open_run
from hsf_finetune.experiment.earlier_cases import MOST_LOST, EarlierCases
from hsf_finetune.experiment.quality_lessons import describe_quality
from hsf_finetune.experiment.run import find_inputs
from hsf_finetune.experiment.run_result import RunResult
from hsf_finetune.experiment.validation_lessons import describe_lessons
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.rewrite_card import rewrite_card
from hsf_finetune.planning.auto_precision import with_precision
from hsf_finetune.planning.auto_sizes import with_sizes
from hsf_finetune.planning.corrections import Correction, find_corrections, keep_corrections
from hsf_finetune.planning.run_cases import read_run_cases
from hsf_finetune.planning.setup import prepare
from hsf_finetune.planning.source_model import CLASS_GROUPS, read_class_groups
from hsf_finetune.report.trained_cases import also_trained
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.caller_state import kept_caller_state
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError, DataError
from hsf_finetune.system.run_folder import BEST, GIVEN, SPLITS, RunFolder
from hsf_finetune.weights.sources.read_source import find_checkpoint

_SHARE = 0.5
"""Share of the draws that are of the new cases; the others are of all earlier ones."""
_EPOCHS = 2


@dataclass(frozen=True)
class LearnResult:
    """What came of corrections.

    Args:
        run: the new run.
        corrections: that it learnt from.
        losses: earlier case -> mean Dice that it lost since the first corrections.
        share: of the way from the model of before to what training found.
        trained: how many of the earlier validation cases train, see `also_trained`.
    """

    run: RunResult
    corrections: tuple[Correction, ...]
    losses: dict[str, float]
    share: float
    trained: str = ""

    @property
    def worse(self) -> dict[str, float]:
        """The earlier cases that lost more than `MOST_LOST`; with any, keep the model of before."""
        return {case: lost for case, lost in self.losses.items() if lost > MOST_LOST}


@kept_caller_state()
def learn(
    run: str | Path,
    corrections: str | Path,
    output: str | Path,
    scans: str | Path | None = None,
    steps: int = 60,
) -> LearnResult:
    """Trains a run's best model a little more, on corrections and on its earlier cases.

    Half of the draws are of the corrected scans, half of the cases that it knows (rehearsal;
    Robins, Connection Science 1995). The earlier validation cases stay out of training, but for
    those of a run of folds, all of which train. Where one loses more than `MOST_LOST`, the weights of the model go back towards those of before (Wortsman
    et al., CVPR 2022, "Robust fine-tuning of zero-shot models"), but training goes on from what it
    found when the next corrections come: what one round must take back, several may keep.

    Args:
        run: folder of the run.
        corrections: what `next` or `predict` wrote, corrected.
        output: folder of the new run.
        scans: folder of the scans; None where `next` wrote the corrections.
        steps: of training.

    Returns:
        `.run`, a run as any other, and `.worse`, the earlier cases that lost too much.

    Raises:
        ConfigError: it is no run, or not known which scans were corrected.
        UserError: corrections do not fit, or nothing was corrected.

    Examples:
        >>> import hsf_finetune as hf
        >>> done = hf.learn("outputs/first", "next", "outputs/learnt", steps=4)
        >>> len(done.corrections)
        1
    """
    output, corrections = Path(output).absolute(), Path(corrections).absolute()
    folders = (corrections, Path(scans).absolute() if scans else None)
    parent = find_checkpoint(run).absolute().parent.parent
    settings = read_settings_of(parent)
    if steps < 1:
        raise ConfigError("training needs a step or more", found=steps, fix="--steps 60")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("the folder is in use", file=output, fix="give another one: -o LEARNT")
    known = read_run_cases(parent)
    model = Predictor.load(parent)
    with console.progress("comparing corrections with the model's segmentations") as tick:
        found = find_corrections(model, folders, known, tick)
    corrected = _leave_out_equal(found, corrections)
    try:
        given = keep_corrections(output / GIVEN, corrected, model.card, parent)
        learning = _settings(settings, known.split, given, output, steps)
        return _train(_with_weights(learning, parent, model.card), parent, corrected)
    except BaseException:
        if not (output / "config.yaml").exists():
            shutil.rmtree(output, ignore_errors=True)
        raise


# -------------------------------------------------------------------- internals
def _leave_out_equal(found: Sequence[Correction], folder: Path) -> list[Correction]:
    """The corrections that differ from what the model finds; the others are named."""
    corrected = [one for one in found if one.changed]
    for one in found:
        if not one.changed:
            console.say(f"left out, equal to what the model finds: {one.label.name}")
    if not corrected:
        raise DataError(
            "nothing was corrected: every segmentation is what the model finds",
            file=folder,
            fix="correct them first, and save them under the same names",
        )
    voxels = sum(one.changed for one in corrected)
    console.say(
        f"learning from {count_of(len(corrected), 'correction')}, "
        f"{voxels / len(corrected):.0f} voxels each"
    )
    return corrected


def _train(settings: Settings, parent: Path, corrected: Sequence[Correction]) -> LearnResult:
    """Makes the run, whose weights go as far from those of before as earlier cases allow."""
    own = settings.datasets.retention
    # The source's classes may have become several: its task is scored here, by sets of classes.
    data = settings.datasets.model_copy(update={"retention": {}})
    changed = settings.model_copy(update={"datasets": data})
    setup = with_precision(with_sizes(prepare(changed, find_inputs(changed))))
    source: tuple[Case, ...] = ()
    if own:
        models = settings.models.model_copy(update={"use_forgiving_loss": True})
        source = discover(data.model_copy(update={"datasets": own}), models).cases
    with open_run(replace(setup, requested=settings)) as run:
        before = run.begin()
        guard = EarlierCases(run, find_checkpoint(parent), before, source)
        if (parent / GIVEN).exists():
            guard.go_on_from(find_checkpoint(parent, "last"))
        fit(run, before)
        share, losses = guard.take_back()
        if not run.setup.split.held_out:
            _keep_lessons(run.folder, Predictor.load(parent, device="cpu").card, parent)
        trained = also_trained(run.setup.split.to_dict(), "validation")
        return LearnResult(run.conclude(before), tuple(corrected), losses, share, trained)


def _keep_lessons(run: RunFolder, known: ModelCard, parent: Path) -> None:
    """Gives the model what earlier ones learnt about themselves, where no case is left for it."""
    best = run.checkpoints / BEST
    lessons = {name: getattr(known, name) for name in ("calibration", "postprocessing", "quality")}
    card = replace(Predictor.load(best, device="cpu").card, **lessons)
    quality = [describe_quality(card)] if card.quality else []
    for line in (*describe_lessons(card), *quality):
        console.say(f"kept from {parent}, as no case is left to learn it again: {line}")
    rewrite_card(best, card)


def _settings(
    settings: Settings,
    split: Split,
    given: DatasetSettings,
    output: Path,
    steps: int,
) -> Settings:
    """The settings of the run, whose split is written beside the corrections."""
    data = settings.datasets
    name = f"{GIVEN}_{sum(name.startswith(GIVEN) for name in data.datasets) + 1}"
    weights = choose_draw_weights(split.train, _without_old_weights(data)).by_dataset
    names = _case_names(settings, name, given)
    total = sum(weights[case.dataset] for case in split.train)
    weight = max(total * _SHARE / (1 - _SHARE) / len(names), 1e-6)
    datasets = {
        key: one.model_copy(update={"weight": weights[key]}) for key, one in data.datasets.items()
    }
    datasets[name] = given.model_copy(update={"weight": weight})
    sides = split.to_dict()
    sides["train"] += names
    write_json(output / GIVEN / SPLITS, sides)
    batch = 2 if data.batch_size == "auto" else data.batch_size
    batch *= settings.lightning.accumulate_grad_batches
    changed: dict[str, object] = {
        "datasets": datasets,
        "split_file": str(output / GIVEN / SPLITS),
        "train_val_test_idx": None,
        "train_on_all": False,
        "fold": None,
        "unlabelled": [],
        "k_sample": batch * -(-steps // _EPOCHS),
    }
    engine = {
        "max_epochs": _EPOCHS,
        "check_val_every_n_epoch": _EPOCHS,
        "forecast": False,
        "devices": 1,
        "num_nodes": 1,
    }
    return settings.model_copy(
        update={
            "run_dir": str(output),
            "resume": None,
            "reset": [],
            "datasets": data.model_copy(update=changed),
            "lightning": settings.lightning.model_copy(update=engine),
        }
    )


def _with_weights(settings: Settings, parent: Path, card: ModelCard) -> Settings:
    """The settings with the model to go on from, all of which trains."""
    models = settings.models
    data = settings.datasets.model_copy(update={"retention": _retention_of(settings, parent, card)})
    sets = {"labels_names": [*card.classes[1:]]}
    tuning = FinetuningSettings(
        strategy="full", budget="fixed", lr_factors={"head": 1.0}, divergence_share=None
    )
    return settings.model_copy(
        update={
            "task": "finetune",
            "datasets": data,
            "models": models.model_copy(update=sets),
            "weights": WeightsSettings(pretrained=str(parent)),
            "finetuning": tuning,
        }
    )


def _retention_of(settings: Settings, parent: Path, card: ModelCard) -> dict[str, DatasetSettings]:
    """`datasets.retention`, where the source's classes stand for those that came out of them."""
    given, file = settings.datasets.retention, parent / CLASS_GROUPS
    if not given or not file.exists():
        return given
    classes, groups = read_class_groups(file)
    came_of = {
        classes[channel]: [card.classes[one] for one in group.target]
        for group in groups
        for channel in group.source
    }
    return {
        name: one.model_copy(
            update={
                "label_sets": one.label_sets
                | {
                    title: came_of[title]
                    for title in one.labels_names.values()
                    if title not in card.classes and came_of.get(title)
                }
            }
        )
        for name, one in given.items()
    }


def _without_old_weights(data: DatasetsSettings) -> dict[str, DatasetSettings]:
    """The datasets, in which earlier corrections count as any other case."""
    return {
        name: one.model_copy(update={"weight": 1.0}) if name.startswith(GIVEN) else one
        for name, one in data.datasets.items()
    }


def _case_names(settings: Settings, name: str, given: DatasetSettings) -> list[str]:
    """The names of the new cases."""
    data = settings.datasets.model_copy(update={"datasets": {name: given}})
    return [case.name for case in discover(data).cases]
