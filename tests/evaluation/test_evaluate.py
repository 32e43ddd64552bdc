"""A run, files and folders are scored into one value, which shows and saves itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.evaluation.evaluate import evaluate_files, evaluate_run
from hsf_finetune.evaluation.score_tables import MEAN, read_scores
from hsf_finetune.system.errors import ConfigError, OutputError
from tests.conftest import save_nifti, tiny_case


def test_files_are_scored_and_shown(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", tiny_case(1)[1])
    found = evaluate_files(path, path, {10: "anterior", 20: "posterior"})
    assert [(row.case, row.score.class_name, row.score.dice) for row in found.rows] == [
        ("a", "anterior", 1.0),
        ("a", "posterior", 1.0),
    ]
    assert [one.class_name for one in found.summary] == ["anterior", "posterior", MEAN]
    for text in (str(found), found._repr_html_()):
        assert all(part in text for part in ("anterior", "posterior", MEAN, "1.000", "a.nii.gz"))
    assert found._repr_html_().startswith("<pre")
    with pytest.raises(ConfigError, match="label values to classes"):
        evaluate_files(path, path, {"anterior": 10})  # type: ignore[dict-item]


def test_scores_are_saved_once(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", tiny_case(1)[1])
    found = evaluate_files(path, path)
    found.save(tmp_path / "scores.csv")
    assert tuple(read_scores(tmp_path / "scores.csv")) == found.rows
    with pytest.raises(OutputError, match="exists"):
        found.save(tmp_path / "scores.csv")


def test_a_run_is_scored_on_a_side_of_its_split(source_run: Path) -> None:
    found = evaluate_run(source_run, device="cpu")
    stored = read_scores(source_run / "validation_scores.csv")
    assert [(row.case, row.score.dice) for row in found.rows] == [
        (row.case, pytest.approx(row.score.dice)) for row in stored
    ]
    assert found.title == f"{source_run.name} on 2 validation cases"
    with pytest.raises(ConfigError, match="no test cases"):
        evaluate_run(source_run, "test")
    with pytest.raises(ConfigError, match="not the folder of a run"):
        evaluate_run(source_run / "checkpoints")
