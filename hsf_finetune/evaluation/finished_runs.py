"""Runs that have ended, and whether they can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.model_comparison import Arm
from hsf_finetune.evaluation.score_tables import MEAN, ScoreRow, read_scores, summarise
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.files import write_json
from hsf_finetune.system.run_folder import RESULT, has_ended
from hsf_finetune.training.training_cost import TrainingCost, read_cost

Side = Literal["validation", "test"]
UNTOUCHED = "pretrained"
"""Name of the model that runs start from."""

FINAL = "final"
"""Folder, in that of a run of several folds, of the model that trained on every case."""

_FILES: Mapping[Side, tuple[str, str]] = {
    "validation": ("pretrained_scores.csv", "validation_scores.csv"),
    "test": ("pretrained_test_scores.csv", "test_scores.csv"),
}
"""Side -> files with the scores before and after training."""
_SAME_MODEL = 0.002
"""Difference in mean Dice that one untouched model may show on two kinds of device."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run left behind.

    Args:
        name: unique among the runs it is compared with.
        folder: of the run.
        split: `train`, `validation` and `test` -> names of its cases.
        before: side -> scores of the model it started from; empty for random weights.
        after: side -> scores of its best epoch; empty for a side without cases.
        cost: of its training.
    """

    name: str
    folder: Path
    split: Mapping[str, frozenset[str]]
    before: Mapping[Side, tuple[ScoreRow, ...]]
    after: Mapping[Side, tuple[ScoreRow, ...]]
    cost: TrainingCost

    def classes(self, side: Side) -> tuple[str, ...]:
        """Names of the classes that were scored, in the model's order."""
        return tuple(dict.fromkeys(row.score.class_name for row in self.after[side]))


def read_settings_of(run: Path) -> Settings:
    """The settings that a run was started with.

    Raises:
        ConfigError: the folder is not one of a run, or its settings cannot be read.
    """
    config = run / "config.yaml"
    if not config.exists():
        raise ConfigError(
            "not the folder of a run",
            file=run,
            expected="a folder with config.yaml, splits.json and result.json",
        )
    try:
        return Settings.model_validate(yaml.safe_load(config.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError("cannot read the run's settings", file=config, found=error) from error


def read_run(folder: Path, name: str) -> FinishedRun:
    """Reads what a run left behind.

    Raises:
        ConfigError: it is no run, or one that has not ended.
        DataError: its scores cannot be read.
    """
    read_settings_of(folder)
    if not has_ended(folder):
        raise ConfigError(
            "the run has not ended",
            file=folder,
            fix=f"finish it with resume={folder} and its own settings, or leave it out",
        )
    split = json.loads((folder / "splits.json").read_text())
    return FinishedRun(
        name,
        folder,
        {side: frozenset(split[side]) for side in ("train", "validation", "test")},
        {side: _scores(folder / files[0]) for side, files in _FILES.items()},
        {side: _scores(folder / files[1]) for side, files in _FILES.items()},
        read_cost(folder),
    )


def write_result(
    folder: Path,
    before: Sequence[ScoreRow],
    after: Sequence[ScoreRow],
    budget: object,
    **more: object,
) -> None:
    """Writes result.json, whose presence says that the run has ended.

    Args:
        folder: of the run.
        before: validation scores of the model it started from; empty for random weights.
        after: validation scores of its best epoch.
        budget: what ended its training.
        more: further entries.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json(
        folder / RESULT,
        {
            "pretrained": [asdict(mean) for mean in summarise(before)],
            "best_epoch": [asdict(mean) for mean in summarise(after)],
            "training": asdict(read_cost(folder)),
            "budget": budget,
            **more,
        },
    )


def fold_folders(run: Path) -> list[Path]:
    """The folders of a run's folds, in their order; none for a run of a single split."""
    folders = [path for path in run.glob("fold_*") if (path / "config.yaml").exists()]
    return sorted(folders, key=lambda path: (len(path.name), path.name))


def names_of(folders: Sequence[Path]) -> list[str]:
    """A short name for each run: its regime where all differ in it, else its folder's name.

    Raises:
        ConfigError: one is not the folder of a run.
    """
    regimes = [regime_of(read_settings_of(folder)) for folder in folders]
    for names in (regimes, [folder.name for folder in folders]):
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def regime_of(settings: Settings) -> str:
    """Name of a run's regime: of the preset that brings it, as shipped."""
    tuning = settings.finetuning
    if tuning.pretrained == "none":
        return "from_scratch"
    return "hsf" if tuning.regime == "gradual_unfreezing" else tuning.regime


def check_comparable(runs: Sequence[FinishedRun], side: Side) -> None:
    """Refuses runs whose scores are not of the same cases and classes.

    Raises:
        ConfigError: they were split differently, or have other classes.
    """
    first = runs[0]
    for run in runs[1:]:
        apart = [
            f"{case} is among the {part} cases of {holder.name}, and not of {other.name}"
            for part in first.split
            for holder, other in ((first, run), (run, first))
            for case in sorted(holder.split[part] - other.split[part])[:2]
        ]
        if apart:
            raise ConfigError(
                "runs with different splits cannot be compared",
                file=f"{first.folder} and {run.folder}",
                found="\n".join(apart),
                expected="the same train, validation and test cases in every run",
                fix="make the runs with the same datasets and seed, or with "
                f"datasets.split_file={first.folder / 'splits.json'}",
            )
        if run.classes(side) != first.classes(side):
            raise ConfigError(
                "runs with different classes cannot be compared",
                file=f"{first.folder} and {run.folder}",
                found="\n".join(f"{r.name}: {', '.join(r.classes(side))}" for r in (first, run)),
                expected="the same labels_names in every run",
            )


def common_side(runs: Sequence[FinishedRun], wanted: Side | None) -> Side:
    """The side to compare on: `test` where every run has scores of it, unless one is wanted.

    Raises:
        ConfigError: a run has no scores of the wanted side.
    """
    if wanted is None:
        return "test" if all(run.after["test"] for run in runs) else "validation"
    for run in runs:
        if not run.after[wanted]:
            raise ConfigError(
                f"the run has no {wanted} scores",
                file=run.folder,
                fix="--on validation, or runs with test cases (datasets.split_file, "
                "datasets.train_val_test_idx)",
            )
    return wanted


def arms_of(runs: Sequence[FinishedRun], side: Side) -> list[Arm]:
    """The untouched models that runs started from, each once, and then the runs."""
    untouched: list[Arm] = []
    for run in runs:
        rows = run.before[side]
        if rows and not any(_alike(rows, arm.scores) for arm in untouched):
            name = f"{UNTOUCHED} of {run.name}" if untouched else UNTOUCHED
            untouched.append(Arm(name, rows))
    return [*untouched, *(Arm(r.name, r.after[side], r.cost, r.folder) for r in runs)]


# -------------------------------------------------------------------- internals
def _scores(path: Path) -> tuple[ScoreRow, ...]:
    return tuple(read_scores(path)) if path.exists() else ()


def _alike(a: Sequence[ScoreRow], b: Sequence[ScoreRow]) -> bool:
    one, other = ({s.class_name: s.dice.mean for s in summarise(rows)} for rows in (a, b))
    return one.keys() == other.keys() and abs(one[MEAN] - other[MEAN]) < _SAME_MODEL
