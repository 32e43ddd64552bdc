"""Scores of a run's model, or of segmentations on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from rich.table import Table

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.evaluation.finished_runs import fold_folders
from hsf_finetune.evaluation.score_files import score_files
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import (
    ClassSummary,
    ScoreRow,
    protocol_table,
    summarise,
    summary_table,
    write_scores,
)
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError, OutputError

SplitSide = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of several cases. It shows its summary in a notebook.

    Args:
        title: what was scored.
        rows: one per case and class.
    """

    title: str
    rows: tuple[ScoreRow, ...]

    @cached_property
    def summary(self) -> list[ClassSummary]:
        """One summary per class, then the mean over the classes."""
        return summarise(self.rows)

    def tables(self) -> list[Table]:
        """The summary, and Dice of each dataset where their protocols differ."""
        by_protocol = protocol_table(self.rows)
        summary = summary_table(self.summary, title=self.title)
        return [summary] if by_protocol is None else [summary, by_protocol]

    def save(self, path: str | Path) -> None:
        """Writes one line per case and class as CSV.

        Raises:
            OutputError: the file exists or cannot be written.
        """
        check_is_free(path)
        write_scores(path, self.rows)

    def __str__(self) -> str:
        """The tables as text."""
        return console.text_of(*self.tables())

    def _repr_html_(self) -> str:
        return console.html_of(*self.tables())


def evaluate_run(
    run: Path, side: SplitSide = "validation", tolerance_mm: float = 1.0, device: str = "auto"
) -> Evaluation:
    """Scores a run's best model on one side of its split.

    Of a run of several folds, each case is scored by the fold that did not train on it.

    Args:
        run: folder of the run.
        side: of its split.
        tolerance_mm: of the normalised surface Dice.
        device: as for `Predictor.load`.

    Raises:
        UserError: the folder is no run, or that side has no case.
    """
    folds = fold_folders(run)
    if folds and side != "validation":
        raise ConfigError(
            f"a run of {len(folds)} folds has no {side} cases of its own",
            file=run,
            fix=f"--split validation, or one of its folds: hsf-finetune evaluate {folds[0]}",
        )
    rows = [row for part in folds or [run] for row in _score(part, side, tolerance_mm, device)]
    cases = console.count_of(len({row.case for row in rows}), f"{side} case")
    return Evaluation(f"{run.name} on {cases}", tuple(rows))


def evaluate_files(
    prediction: Path,
    label: Path,
    names: Mapping[int, str] | None = None,
    tolerance_mm: float = 1.0,
) -> Evaluation:
    """Scores segmentations on disk against their labels.

    Args:
        prediction: a volume, or a folder of volumes.
        label: a volume, or a folder that has a label for each prediction.
        names: label value -> class; None scores each value that occurs, under its number.
        tolerance_mm: of the normalised surface Dice.

    Raises:
        UserError: the files do not pair, or cannot be read.
    """
    if not all(isinstance(value, int) for value in names or ()):
        raise ConfigError("names must map label values to classes", found=names, expected={1: "DG"})
    rows = score_files(prediction, label, names or {}, tolerance_mm)
    return Evaluation(f"{prediction} against {label}", tuple(rows))


def check_is_free(path: str | Path) -> None:
    """Refuses to overwrite scores.

    Raises:
        OutputError: the file exists.
    """
    if Path(path).exists():
        raise OutputError("the file exists", file=path, fix="give a new name: -o SCORES.csv")


def _score(run: Path, side: SplitSide, tolerance_mm: float, device: str) -> list[ScoreRow]:
    settings = read_settings_of(run)
    datasets = settings.datasets.model_copy(update={"split_file": str(run / "splits.json")})
    split = split_cases(discover(datasets, settings.models).cases, datasets, settings.seed)
    cases = split.side(side)
    if not cases:
        raise ConfigError(f"the run's split has no {side} cases", file=run / "splits.json")
    model = Predictor.load(run, "best", device)
    with console.progress(f"scoring {side} cases") as tick:
        return score_cases(model, cases, tolerance_mm, tick)
