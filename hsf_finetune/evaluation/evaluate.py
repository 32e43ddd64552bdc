"""Scores of a run's model, or of segmentations on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.data.volumes.check_volumes import check_same_grid, to_whole_numbers
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_volume, read_volume, stem
from hsf_finetune.evaluation.finished_runs import fold_folders
from hsf_finetune.evaluation.metrics import Labels, score_case
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
from hsf_finetune.system.errors import ConfigError, DataError, OutputError

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
    """Scores segmentations on disk against their labels, paired by file name.

    Args:
        prediction: a volume, or a folder of volumes.
        label: a volume, or a folder that has a label for each prediction.
        names: label value -> class; values of one class are scored as one. None scores each
            value that occurs in a label or prediction, under its number.
        tolerance_mm: of the normalised surface Dice.

    Raises:
        UserError: a prediction without a label, volumes on different grids or that cannot be
            read, or names of anything but integers.
    """
    if not all(isinstance(value, int) for value in names or ()):
        raise ConfigError("names must map label values to classes", found=names, expected={1: "DG"})
    volumes = {}
    for case, (predicted, truth) in _pair_files(prediction, label).items():
        a, b = read_volume(VolumeRef(predicted)), read_volume(VolumeRef(truth))
        check_same_grid(b, a)
        volumes[case] = (to_whole_numbers(a), to_whole_numbers(b), b.spacing_mm)
    classes: dict[str, list[int]] = {}
    for value, name in (names or _name_values(volumes.values())).items():
        classes.setdefault(name, []).append(value)
    rows = tuple(
        ScoreRow(case, case, score)
        for case, (a, b, spacing_mm) in volumes.items()
        for score in score_case(a, b, classes, spacing_mm, tolerance_mm)
    )
    return Evaluation(f"{prediction} against {label}", rows)


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


def _pair_files(prediction: Path, label: Path) -> dict[str, tuple[Path, Path]]:
    for path in (prediction, label):
        if not path.exists():
            raise DataError("no such file or folder", file=path)
    if prediction.is_file() and label.is_file():
        return {stem(prediction): (prediction, label)}
    if prediction.is_file() or label.is_file():
        raise DataError("one is a file and the other a folder", file=prediction, found=label)
    predictions, labels = _volumes_by_name(prediction), _volumes_by_name(label)
    missing = sorted(predictions.keys() - labels.keys())
    unpredicted = sorted(labels.keys() - predictions.keys())
    if missing or unpredicted or not predictions:
        raise DataError(
            "predictions and labels do not pair by file name",
            file=prediction,
            found=f"{len(predictions)} predictions, {len(labels)} labels\n"
            f"without a label: {', '.join(missing[:6]) or 'none'}\n"
            f"without a prediction: {', '.join(unpredicted[:6]) or 'none'}",
            fix="leave the same files in both folders; a case without a prediction is not "
            "dropped from the mean silently",
        )
    return {name: (predictions[name], labels[name]) for name in sorted(predictions)}


def _volumes_by_name(folder: Path) -> dict[str, Path]:
    """The volumes of a folder by their path in it, without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(filter(is_volume, folder.rglob("*"))):
        name = (path.parent.relative_to(folder) / stem(path)).as_posix()
        if name in found:
            raise DataError(
                "two files differ in their suffix only",
                file=path,
                found=found[name].name,
                fix="leave one of them",
            )
        found[name] = path
    return found


def _name_values(volumes: Iterable[tuple[Labels, Labels, object]]) -> dict[int, str]:
    """Every value that occurs, but that of the background, by its number."""
    values = {int(v) for pair in volumes for array in pair[:2] for v in np.unique(array)}
    return {value: str(value) for value in sorted(values - {0})}
