"""What finished runs left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.splits import SOURCE_TRAINED
from hsf_finetune.evaluation.score_tables import ScoreRow, read_scores, summarise
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.console import count_of, shorten_list
from hsf_finetune.system.errors import ConfigError, DataError
from hsf_finetune.system.run_folder import RESULT, has_ended, read_split, was_pruned, whole_folds
from hsf_finetune.training.training_cost import TrainingCost, read_cost

Side = Literal["validation", "test"]
FINAL = "final"
"""Folder, in that of a run of several folds, of the model that trained on every case."""

_FILES: Mapping[Side, tuple[str, str]] = {
    "validation": ("pretrained_scores.csv", "validation_scores.csv"),
    "test": ("pretrained_test_scores.csv", "test_scores.csv"),
}
"""Side -> files with the scores before and after training."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run left behind.

    Args:
        name: unique among the runs it is compared with.
        folder: of the run.
        split: `train`, `validation` and `test` -> names of its cases.
        before: side -> scores of the model it started from; empty for random weights.
        after: side -> scores of the epoch that is kept; empty for a side without cases.
        cost: of its training.
        held_out: False where the cases that score it also trained it.
        source_trained: names of cases that score it, and that its source model trained on.
    """

    name: str
    folder: Path
    split: Mapping[str, frozenset[str]]
    before: Mapping[Side, tuple[ScoreRow, ...]]
    after: Mapping[Side, tuple[ScoreRow, ...]]
    cost: TrainingCost
    held_out: bool = True
    source_trained: frozenset[str] = frozenset()

    def classes(self, side: Side) -> tuple[str, ...]:
        """Names of the classes that were scored, in the model's order."""
        return tuple(dict.fromkeys(row.score.class_name for row in self.after[side]))

    def tables(self, side: Side) -> Iterator[tuple[Path, tuple[ScoreRow, ...]]]:
        """The files with its scores and what they hold: after training, then before it."""
        before, after = _FILES[side]
        yield self.folder / after, self.after[side]
        yield self.folder / before, self.before[side]


def read_run(folder: Path, name: str) -> FinishedRun:
    """Reads what a run left behind.

    Raises:
        ConfigError: it is no run, or one that has not ended.
        DataError: its split or its scores cannot be read, cases of its split have no scores, or
            one of its folds is missing.
    """
    read_settings_of(folder)
    if not has_ended(folder):
        raise ConfigError(
            "the run has not ended",
            file=folder,
            fix=f"finish it with resume={folder} and its own settings, or leave it out",
        )
    if was_pruned(folder):
        raise ConfigError(
            "the run was pruned: it ended after its first fold",
            file=folder,
            fix=f"finish it with resume={folder} datasets.prune_below=null, or leave it out",
        )
    whole_folds(folder)
    split = read_split(folder)
    cases = {side: frozenset(split[side]) for side in ("train", "validation", "test")}
    before, after = (
        {side: read_scores_if_any(folder / files[when]) for side, files in _FILES.items()}
        for when in (0, 1)
    )
    for side, files in _FILES.items():
        _check_complete(folder / files[1], after[side], cases[side])
    known = frozenset(split.get(SOURCE_TRAINED, ()))
    cost = read_cost(folder)
    return FinishedRun(name, folder, cases, before, after, cost, split["held_out"], known)


def _check_complete(file: Path, rows: Sequence[ScoreRow], cases: frozenset[str]) -> None:
    """Refuses scores that lack cases which the run scored when it ended."""
    if lacking := sorted(cases - {row.case for row in rows}):
        raise DataError(
            "the run's scores lack cases of its split",
            file=file,
            found=f"no scores of {shorten_list(lacking)}" if rows else "no scores",
            expected=f"scores of {count_of(len(cases), 'case')}, as in splits.json",
            fix=f"copy the file back from a backup of the run, or make the run again; hsf-finetune "
            f"evaluate {file.parent} scores its model once more",
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
        after: validation scores of the epoch that is kept.
        budget: what ended its training.
        more: further entries.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {
        "pretrained": summarise(before),
        "best_epoch": summarise(after),
        "training": read_cost(folder),
        "budget": budget,
    }
    write_json(folder / RESULT, {**content, **more})


def read_scores_if_any(path: Path) -> tuple[ScoreRow, ...]:
    """The scores in a file; none where there is no such file."""
    return tuple(read_scores(path)) if path.exists() else ()
