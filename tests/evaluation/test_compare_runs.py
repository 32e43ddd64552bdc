"""Runs are compared on the same cases; the comparison shows itself, and saves itself if asked."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hsf_finetune.evaluation.compare_runs import (
    Comparison,
    compare_finished_runs,
    compare_runs,
)
from hsf_finetune.evaluation.finished_runs import FinishedRun
from hsf_finetune.evaluation.intervals import Interval
from hsf_finetune.evaluation.metrics import ClassScore
from hsf_finetune.evaluation.model_comparison import judge_models
from hsf_finetune.evaluation.score_tables import MEAN, ScoreRow
from hsf_finetune.system.errors import ConfigError, DataError
from hsf_finetune.training.training_cost import read_cost

SPLIT = {
    "train": frozenset("abc"),
    "validation": frozenset("de"),
    "test": frozenset[str](),
}


def rows(*dices: float, name: str = "DG") -> tuple[ScoreRow, ...]:
    return tuple(
        ScoreRow(case, case, ClassScore(name, "scored", dice, 1.0, dice, 10.0, 10.0, 0.0))
        for case, dice in zip("de", dices, strict=True)
    )


def finished(
    name: str, folder: Path, after: tuple[ScoreRow, ...], before: tuple[ScoreRow, ...] = ()
) -> FinishedRun:
    sides = ({"validation": part, "test": ()} for part in (before, after))
    return FinishedRun(name, folder, SPLIT, *sides, read_cost(folder))


def means(compared: Comparison) -> dict[str, float]:
    return {one.model.name: one.dice.mean for one in compared.figures}


def test_each_pretrained_model_stands_once_above_the_runs(source_run: Path) -> None:
    start, other = rows(0.5, 0.6), rows(0.2, 0.3)
    compared = compare_finished_runs(
        [
            finished("linear", source_run, rows(0.7, 0.8), start),
            finished("hsf", source_run, rows(0.8, 0.9), start),
            finished("lpft", source_run, rows(0.6, 0.7), other),
        ]
    )
    assert means(compared) == pytest.approx(
        {
            "pretrained": 0.55,
            "pretrained of lpft": 0.25,
            "linear": 0.75,
            "hsf": 0.85,
            "lpft": 0.65,
        }
    )
    assert compared.reference == "hsf", "the best, where none is full"
    assert compared.side == "validation"
    assert compared.figures[2].differences["mean"].mean == pytest.approx(-0.1)
    assert compared.figures[3].differences == {}


def test_full_is_the_reference_where_there_is_one(source_run: Path) -> None:
    runs = [finished(n, source_run, rows(d, d)) for n, d in (("hsf", 0.9), ("full", 0.8))]
    assert compare_finished_runs(runs).reference == "full"


def test_runs_that_differ_are_refused(source_run: Path) -> None:
    one = finished("a", source_run, rows(0.5, 0.6))
    with pytest.raises(ConfigError, match="different classes"):
        compare_finished_runs([one, finished("b", source_run, rows(0.5, 0.6, name="CA1"))])
    with pytest.raises(ConfigError, match="no test scores"):
        compare_finished_runs([one], side="test")
    with pytest.raises(ConfigError, match="no run 'hsf'"):
        compare_runs([source_run], reference="hsf")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("splits.json", None),
        ("splits.json", "{}"),
        ("validation_scores.csv", None),
    ],
)
def test_runs_whose_files_are_damaged_are_refused(
    source_run: Path, tmp_path: Path, file: str, content: str | None
) -> None:
    shutil.copytree(source_run, tmp_path / "run")
    damaged = tmp_path / "run" / file
    damaged.unlink()
    if content is not None:
        damaged.write_text(content)
    with pytest.raises(DataError) as caught:
        compare_runs([source_run, tmp_path / "run"])
    assert caught.value.file == damaged


def test_runs_that_trained_on_the_cases_are_not_compared_with_others(source_run: Path) -> None:
    held_out = finished("folds", source_run, rows(0.5, 0.6))
    taught = replace(finished("final", source_run, rows(0.8, 0.9)), held_out=False)
    for pair in ([held_out, taught], [taught, held_out]):
        with pytest.raises(ConfigError, match="final trained on its validation cases, folds did"):
            compare_finished_runs(pair)


def test_it_is_said_where_the_cases_trained_all_models(source_run: Path, tmp_path: Path) -> None:
    split = json.loads((source_run / "splits.json").read_text())
    runs = [tmp_path / name for name in ("one", "two")]
    for run in runs:
        shutil.copytree(source_run, run)
        (run / "splits.json").write_text(json.dumps({**split, "held_out": False}))
    compared = compare_runs(runs, output=tmp_path / "out")
    assert compared.title == "2 validation cases of 2 subjects, which also trained"
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert written["held_out"] is False
    for text in (written["result"], " ".join(str(compared).split())):
        assert "no measure of new scans" in text
    with pytest.raises(ConfigError, match="cannot be compared with one that did not"):
        compare_runs([source_run, runs[0]])


def with_volumes(given: tuple[ScoreRow, ...], *volumes_mm3: float) -> tuple[ScoreRow, ...]:
    return tuple(
        replace(row, score=replace(row.score, volume_truth_mm3=volume))
        for row, volume in zip(given, volumes_mm3, strict=True)
    )


def test_scores_of_other_labels_under_the_same_names_are_refused(source_run: Path) -> None:
    one = rows(0.5, 0.6)
    same, changed = with_volumes(one, 10.0 + 1e-6, 10.0), with_volumes(one, 10.0, 10.1)
    first = finished("first", source_run / "first", one)
    compare_finished_runs([first, finished("same", source_run, same, same)])
    for other, file in (
        (finished("other", source_run, changed), "validation_scores.csv"),
        (finished("other", source_run, one, changed), "pretrained_scores.csv"),
    ):
        with pytest.raises(ConfigError, match="under the same names") as caught:
            compare_finished_runs([first, other])
        assert caught.value.found == "e: DG 10 mm3 and 10.1 mm3\nin 1 case"
        assert str(caught.value.file).startswith(str(source_run / "first"))
        assert str(caught.value.file).endswith(file)


def test_labels_whose_values_were_exchanged_are_refused(source_run: Path) -> None:
    def both(dg_mm3: float, ca1_mm3: float) -> tuple[ScoreRow, ...]:
        dg, ca1 = rows(0.5, 0.6), rows(0.5, 0.6, name="CA1")
        return (*with_volumes(dg, dg_mm3, dg_mm3), *with_volumes(ca1, ca1_mm3, ca1_mm3))

    pair = [finished("a", source_run, both(10, 20)), finished("b", source_run, both(20, 10))]
    with pytest.raises(ConfigError, match="in 2 cases"):
        compare_finished_runs(pair)


def test_it_shows_itself_and_writes_only_when_asked(source_run: Path, tmp_path: Path) -> None:
    before = sorted(source_run.parent.rglob("*"))
    compared = compare_runs([source_run, source_run])
    assert compared.folder is None
    assert sorted(source_run.parent.rglob("*")) == before
    (figures,) = compared.figures
    assert math.isfinite(figures.dice.mean)
    assert compared.title == "2 validation cases of 2 subjects"
    for text in (str(compared), compared._repr_html_()):
        assert figures.model.name in text
        assert compared.title in text
    saved = compare_runs([source_run], output=tmp_path / "out")
    assert saved.folder == tmp_path / "out"
    assert {path.name for path in saved.folder.iterdir()} == {
        "compare.csv",
        "compare.json",
        "compare.png",
    }


@pytest.mark.parametrize(
    ("change", "low", "high", "words"),
    [
        (0.02, 0.01, 0.03, "hsf against full: Dice +0.020, 95 % interval +0.010 to +0.030: hsf is better"),
        (0.02, -0.01, 0.05, "may be chance"),
        (-0.02, -0.03, -0.01, "full against hsf: Dice +0.020, 95 % interval +0.010 to +0.030: full is"),
        (0.02, math.nan, math.nan, "one subject does not tell"),
    ],
)  # fmt: skip
def test_a_sentence_says_which_one_is_better_and_how_sure_that_is(
    change: float, low: float, high: float, words: str
) -> None:
    def figures(name: str, dice: float, *differences: Interval) -> Any:
        return SimpleNamespace(
            model=SimpleNamespace(name=name),
            dice=Interval(dice, dice, dice, 4, 4),
            differences=dict(zip([MEAN], differences, strict=False)),
        )

    models = (figures("full", 0.8), figures("hsf", 0.8 + change, Interval(change, low, high, 4, 4)))
    assert words in judge_models(models, "full")
