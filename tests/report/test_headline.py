"""What a report says first: what fine-tuning gained, and where that is no measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hsf_finetune.evaluation.compare_runs import compare_runs
from hsf_finetune.evaluation.metrics import ClassScore
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    write_scores,
)
from hsf_finetune.experiment.compare import show_comparison
from hsf_finetune.report.comparison_report import report_comparison
from tests.report.conftest import finetune, reported, text_of


@pytest.mark.parametrize("told", [False, True])
def test_classes_of_one_source_class_are_no_gain(run: Path, tmp_path: Path, told: bool) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    split = json.loads((copy / "splits.json").read_text())
    cases = [*"ab", *split["validation"][:1]]
    (copy / "splits.json").write_text(json.dumps({**split, "validation": cases}))
    before, after = (
        [
            row
            for name in ("anterior", "posterior", "tail")[: 2 + told]
            for row in (
                ScoreRow(c, c, ClassScore(name, "scored", dice + n / 50, 1, 1, 1, 1, 0))
                for n, c in enumerate(cases)
            )
        ]
        for dice in (0.2, 0.7)
    )
    write_scores(copy / "pretrained_scores.csv", before)
    write_scores(copy / "validation_scores.csv", after)
    weights = json.loads((copy / "transfer.json").read_text())
    weights["channels"] = [
        {"target": name, "rule": "split", "sources": ["blob"]} for name in ("anterior", "posterior")
    ]
    (copy / "transfer.json").write_text(json.dumps(weights))
    text = text_of(reported(copy))
    assert "anterior and posterior came out of blob of the source" in text
    start = "is 0.720. The pretrained model cannot tell anterior and posterior apart"
    if told:
        assert f"{start}; of the other classes, it went from 0.220 to 0.720" in text
    else:
        assert f"{start}, so that what fine-tuning gained cannot be said." in text
    assert ("fine-tuning helped" in text) == told


def test_cases_that_also_trained_are_no_measure(
    data: Path, source_run: Path, tmp_path: Path
) -> None:
    folder = finetune(data, tmp_path, source_run, "datasets.train_on_all=true")
    text = text_of(folder / "report.html")
    assert "fine-tuning helped" not in text
    trained = "5 validation cases of 5 subjects, which also trained"
    assert f"Mean Dice on {trained}, went from" in text
    assert "no measure of new scans" in text
    assert "chose the epoch" not in text
    assert "Before and after: validation cases, which also trained" in text
    assert "Each class: validation cases, which also trained" in text
    methods = "5 scans of 5 subjects for validation, which also trained"
    assert f"not held out: 5 scans of 5 subjects for training, {methods}" in text
    assert text.count(" train, validation ") == 5
    shutil.copytree(folder, other := tmp_path / "other")
    compared = report_comparison(compare_runs([folder, other]))
    assert "no measure of new scans" in compared.answer[1]


@pytest.mark.parametrize("folds", [False, True])
def test_terminal_and_report_say_alike_what_the_pretrained_model_cannot_tell(
    data: Path,
    source_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    folds: bool,
) -> None:
    derived = "finetuning.derive_from={anterior: blob, posterior: blob}"
    more = ["datasets.fold=all", "datasets.folds=2"] if folds else []
    folder = finetune(data, tmp_path / "runs", source_run, derived, *more)
    remark = "anterior and posterior came out of blob of the source, so that the pretrained model"
    assert f"over the cases with both. {remark}" in " ".join(capsys.readouterr().out.split())
    assert remark in text_of(folder / "report.html")
    compared = compare_runs([folder], output=tmp_path)
    show_comparison(compared)
    for text in (capsys.readouterr().out, str(compared), (tmp_path / "compare.json").read_text()):
        assert remark in " ".join(text.split())
    assert remark in text_of(tmp_path / "report.html")
