"""Scores of a run's model, or of segmentations on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from hsf_finetune.config.compose import compose
from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.discovery.cases import Case, discover
from hsf_finetune.data.splits import OF_SOURCE, SOURCE_TRAINED, note_trained, split_cases
from hsf_finetune.data.volumes.affines import voxel_size_mm
from hsf_finetune.data.volumes.check_volumes import on_grid_of, to_whole_numbers
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_shape, read_volume
from hsf_finetune.evaluation.known_cases import run_of, source_trained_on, trained_on
from hsf_finetune.evaluation.metrics import Labels, default_tolerance_mm, score_case
from hsf_finetune.evaluation.pair_files import pair_files
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import (
    ClassSummary,
    ScoreRow,
    protocol_table,
    summarise,
    summary_table,
    write_scores,
)
from hsf_finetune.inference.ensemble import load_models
from hsf_finetune.inference.views import ViewKind
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError, OutputError
from hsf_finetune.system.run_folder import SPLITS, fold_folders, read_split, whole_folds

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
    run: Path,
    side: SplitSide = "validation",
    tolerance_mm: float | None = None,
    device: str = "auto",
    more: Sequence[Path] = (),
    tta: ViewKind = "off",
) -> Evaluation:
    """Scores a run's best model, or the mean of several runs, on one side of its split.

    Of a run of several folds, each case is scored by the fold that did not train on it.

    Args:
        run: folder of the run.
        side: of its split.
        tolerance_mm: of the normalised surface Dice; None is `default_tolerance_mm`.
        device: as for `Predictor.load`.
        more: folders of further runs, whose probabilities are averaged with those of the first.
        tta: the views of each scan, whose probabilities are averaged.

    Raises:
        UserError: the folder is no run, one of its folds is missing or has not ended, that side
            has no case, or another run trained on one.
    """
    folds = whole_folds(run)
    if more and any(map(fold_folders, (run, *more))):
        raise ConfigError(
            "the folds of a run train on each other's cases, so their mean has no case to score",
            fix=f"hsf-finetune evaluate {run}",
        )
    if folds and side != "validation":
        raise ConfigError(
            f"a run of {len(folds)} folds has no {side} cases of its own",
            file=run,
            fix=f"--split validation, or one of its folds: hsf-finetune evaluate {folds[0]}",
        )
    rows: list[ScoreRow] = []
    trained: set[str] = set()
    of_source: set[str] = set()
    for part in folds or [run]:
        cases = cases_of(part, side)
        trained |= trained_on(part, cases)
        names = {case.name for case in cases}
        of_source |= names & {*read_split(part).get(SOURCE_TRAINED, ())}
        for other in more:
            _check_unseen(other, cases)
        model = load_models([part, *more], "best", device).with_views(tta)
        if tolerance_mm is None:
            tolerance_mm = default_tolerance_mm(voxel_size_mm(read_shape(cases[0].label)[1]))
        with console.progress(f"scoring {side} cases") as tick:
            rows += score_cases(model, cases, tolerance_mm, tick)
    count = console.count_of(len({row.case for row in rows}), f"{side} case")
    if side != "train":
        scored = len({row.case for row in rows})
        count += note_trained(len(trained), scored) or note_trained(
            len(of_source), scored, OF_SOURCE
        )
    name = " and ".join(one.name for one in (run, *more)) + (f", tta={tta}" if tta != "off" else "")
    return Evaluation(_title(f"{name} on {count}", tolerance_mm), tuple(rows))


def evaluate_weights(
    weights: str | Path,
    overrides: Sequence[str],
    config_dir: Path | None = None,
    tolerance_mm: float | None = None,
    device: str = "auto",
    tta: ViewKind = "off",
) -> Evaluation:
    """Scores a model as it is, whoever trained it, on all cases of a dataset.

    The classes are the model's: labels of the dataset are sets of them.

    Args:
        weights: as for `Predictor.load`.
        overrides: `datasets=mine`, and settings for what the weights do not say.
        config_dir: a folder with the user's own groups, such as `datasets/mine.yaml`.
        tolerance_mm: of the normalised surface Dice; None is `default_tolerance_mm`.
        device: as for `Predictor.load`.
        tta: the views of each scan, whose probabilities are averaged.

    Raises:
        UserError: the weights cannot be used as they are, or the dataset's labels are no
            classes of the model.
    """
    settings = compose("finetune", overrides, config_dir)
    of_weights = [one for one in overrides if not one.lstrip("+~").startswith("datasets")]
    model = load_models([weights], "best", device, of_weights, console.say).with_views(tta)
    known = {"labels_names": [*model.card.classes[1:]], "use_forgiving_loss": True}
    cases = discover(settings.datasets, settings.models.model_copy(update=known)).cases
    if tolerance_mm is None:
        tolerance_mm = default_tolerance_mm(voxel_size_mm(read_shape(cases[0].label)[1]))
    with console.progress("scoring cases") as tick:
        rows = score_cases(model, cases, tolerance_mm, tick)
    trained = source_trained_on(weights, cases)
    count = console.count_of(len(cases), "case") + note_trained(len(trained), len(cases))
    return Evaluation(_title(f"{Path(weights).name} on {count}", tolerance_mm), tuple(rows))


def evaluate_files(
    prediction: Path,
    label: Path,
    names: Mapping[int, str] | None = None,
    tolerance_mm: float | None = None,
) -> Evaluation:
    """Scores segmentations on disk against their labels, paired by `pair_files`.

    Args:
        prediction: a volume, or a folder of volumes.
        label: a volume, or a folder that has a label for each prediction.
        names: label value -> class; values of one class are scored as one. None scores each
            value that occurs in a label or prediction, under its number.
        tolerance_mm: of the normalised surface Dice; None is `default_tolerance_mm`.

    Raises:
        UserError: a prediction without a label, volumes on different grids or that cannot be
            read, or names of anything but integers.
    """
    if not all(isinstance(value, int) for value in names or ()):
        raise ConfigError("names must map label values to classes", found=names, expected={1: "DG"})
    volumes = {}
    for case, (predicted, truth) in pair_files(prediction, label).items():
        a, b = read_volume(VolumeRef(predicted)), read_volume(VolumeRef(truth))
        a = on_grid_of(b, a)
        volumes[case] = (to_whole_numbers(a), to_whole_numbers(b), b.spacing_mm)
    classes: dict[str, list[int]] = {}
    for value, name in (names or _name_values(volumes.values())).items():
        classes.setdefault(name, []).append(value)
    if tolerance_mm is None:
        tolerance_mm = default_tolerance_mm(
            np.median([v[2] for v in volumes.values()], axis=0).tolist()
        )
    rows = tuple(
        ScoreRow(case, case, score)
        for case, (a, b, spacing_mm) in volumes.items()
        for score in score_case(a, b, classes, spacing_mm, tolerance_mm)
    )
    return Evaluation(_title(f"{prediction} against {label}", tolerance_mm), rows)


def check_is_free(path: str | Path) -> None:
    """Refuses to overwrite scores.

    Raises:
        OutputError: the file exists.
    """
    if Path(path).exists():
        raise OutputError("the file exists", file=path, fix="give another name")


def _title(what: str, tolerance_mm: float | None) -> str:
    return f"{what}; NSD within {tolerance_mm:.3g} mm"


def cases_of(run: Path, side: SplitSide) -> tuple[Case, ...]:
    """The cases on one side of a run's split."""
    settings = read_settings_of(run)
    datasets = settings.datasets.model_copy(update={"split_file": str(run / SPLITS)})
    split = split_cases(discover(datasets, settings.models).cases, datasets, settings.seed)
    if not (cases := split.side(side)):
        raise ConfigError(f"the run's split has no {side} cases", file=run / SPLITS)
    return tuple(cases)


def _check_unseen(run: Path, cases: Sequence[Case]) -> None:
    """Refuses to score cases that a run has trained on."""
    read_settings_of(run)
    if seen := sorted(trained_on(run_of(run) or run, cases)):
        raise ConfigError(
            "a run has trained on cases that it would be scored on",
            file=run / SPLITS,
            found=console.shorten_list(seen),
            expected="runs with the same split (datasets.split_file)",
        )


def _name_values(volumes: Iterable[tuple[Labels, Labels, object]]) -> dict[int, str]:
    """Every value that occurs, but that of the background, by its number."""
    values = {int(v) for pair in volumes for array in pair[:2] for v in np.unique(array)}
    return {value: str(value) for value in sorted(values - {0})}
