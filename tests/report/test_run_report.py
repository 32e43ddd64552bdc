"""The report of a run: its figures are those of the run's tables."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.evaluation.score_tables import (
    format_interval,
    paired_differences,
    read_scores,
    summarise,
)
from hsf_finetune.evaluation.volume_agreement import agree_in_volume
from hsf_finetune.experiment.run import run_experiment
from tests.conftest import CONF, FAST


def finetune(data: Path, outputs: Path, source: Path, *more: str) -> Path:
    overrides = (
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={outputs}",
        f"finetuning.pretrained={source}",
        "lightning.max_epochs=2",
        *FAST,
        "report=on",
        *more,
    )
    return run_experiment(compose("finetune", overrides, CONF)).folder


@pytest.fixture(scope="module")
def run(data: Path, source_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(data, tmp_path_factory.mktemp("outputs"), source_run)


def text_of(file: Path) -> str:
    html = file.read_text(encoding="utf-8")
    markup = re.sub(r"<(script|style|svg).*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", markup)))


def test_every_figure_is_that_of_the_tables(run: Path) -> None:
    text = text_of(run / "report.html")
    before, after = (
        read_scores(run / f"{name}_scores.csv") for name in ("pretrained", "validation")
    )
    changes = paired_differences(before, after)
    for one in summarise(after):
        change = format_interval(changes[one.class_name], sign="+")
        assert f"{format_interval(one.dice)} {change}" in text
    for agreement in agree_in_volume(after):
        assert str(format_interval(agreement.bias_percent, sign="+", digits=1)) in text
    mean, old = (summarise(rows)[-1].dice.mean for rows in (after, before))
    assert f"went from {old:.3f} to {mean:.3f}" in text


def test_whole_report_is_there(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", html)
    assert titles == [
        "Before and after: validation cases",
        "Each class",
        "Worst cases",
        "Learning",
        "Volumes",
        "Data and split",
        "Weights and model",
        "Methods",
        "Settings and versions",
    ]
    cases = json.loads((run / "splits.json").read_text())["validation"]
    assert all(html.count(f">{case}</h3>") == 1 for case in cases)
    assert len(html) < 4_000_000


def test_worst_cases_come_first(run: Path) -> None:
    text = text_of(run / "report.html")
    listed = re.findall(r"(tiny__\S+) (\d\.\d{3}) ", text.split("Worst cases")[-1])
    dice = [float(value) for _, value in listed[:2]]
    assert len(dice) == 2
    assert dice == sorted(dice)


def test_data_that_are_gone_are_said(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = copy / "config.yaml"
    config.write_text(re.sub(r"main_path: .*", "main_path: /nowhere", config.read_text()))
    with pytest.raises(SystemExit) as stop:
        main(["report", str(copy)])
    assert stop.value.code == 0
    assert "The cases cannot be shown" in text_of(copy / "report.html")


def test_run_that_has_not_ended_has_no_report(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("result.json"))
    with pytest.raises(SystemExit) as stop:
        main(["report", str(copy)])
    assert stop.value.code == 2


def test_folds_have_one_report(data: Path, source_run: Path, tmp_path: Path) -> None:
    folder = finetune(
        data,
        tmp_path,
        source_run,
        "datasets.fold=all",
        "datasets.folds=2",
        "lightning.max_epochs=1",
    )
    assert [*folder.rglob("report.html")] == [folder / "report.html"]
    text = text_of(folder / "report.html")
    assert "on 5 validation cases of 5 subjects" in text
    assert "Each case is scored by the fold that did not train on it" in text


def test_segmentations_against_labels_have_a_report(data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for label in (data / "tiny").rglob("*_dseg.nii.gz"):
        shutil.copy(label, labels)
    page, names = tmp_path / "scores.html", "10=anterior,20=posterior"
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(labels), str(labels), "--labels", names, "--report", str(page)])
    assert stop.value.code == 0
    assert "Mean Dice on 5 cases of 5 subjects: 1.000 [1.000, 1.000]." in text_of(page)
