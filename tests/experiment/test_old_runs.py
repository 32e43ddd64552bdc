"""Run folders and checkpoints of version 0.1.0 still predict, evaluate, compare and resume."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hsf_finetune.cli.main import launch_or_explain
from hsf_finetune.config.compose import compose
from hsf_finetune.evaluation.compare_runs import compare_runs
from hsf_finetune.evaluation.evaluate import evaluate_run
from hsf_finetune.evaluation.score_tables import read_scores
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from tests.conftest import CONF, FAST

STORED = Path(__file__).parents[1] / "stored_runs" / "v0_1_0"
"""Made by `make_v0_1_0.py` beside it."""


@pytest.fixture
def old(data: Path, tmp_path: Path) -> Path:
    """A copy of the stored runs whose paths are those of this machine."""
    folder = tmp_path / "old"
    shutil.copytree(STORED, folder)
    for path in folder.rglob("*"):
        if path.suffix in (".yaml", ".json", ".csv"):
            text = path.read_text().replace("DATA_FOLDER", str(data))
            path.write_text(text.replace("OUTPUT_FOLDER", str(folder)))
    return folder


def image(data: Path) -> Path:
    return data / "tiny" / "sub-01" / "sub-01_T2w.nii.gz"


@pytest.mark.parametrize("part", ["", "checkpoints/best.ckpt"])
def test_an_old_model_predicts_the_same_voxels(old: Path, data: Path, part: str) -> None:
    expected = np.load(STORED / "expected.npz")["labels"]
    assert set(np.unique(expected)) == {0, 10, 20}
    labels = Predictor.load(old / "finetuned" / part, device="cpu").predict(image(data)).labels
    assert labels.dtype == expected.dtype
    np.testing.assert_array_equal(labels, expected)
    assert labels.shape == nib.load(image(data)).shape


def test_an_old_run_is_evaluated_as_it_was(old: Path) -> None:
    run = old / "finetuned"
    before, now = read_scores(run / "validation_scores.csv"), evaluate_run(run, device="cpu").rows
    assert [(row.case, row.score.class_name) for row in now] == [
        (row.case, row.score.class_name) for row in before
    ]
    for row, earlier in zip(now, before, strict=True):
        assert row.score.dice == pytest.approx(earlier.score.dice, abs=1e-3)


def test_an_interrupted_old_run_is_resumed_to_its_end(old: Path) -> None:
    run = old / "interrupted"
    launch_or_explain("finetune", [f"resume={run}"])
    assert (run / "result.json").exists()
    expected, rows = _metrics(STORED / "resumed_metrics.csv"), _metrics(run / "metrics.csv")
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in expected] == ["0", "1", "2"]
    assert rows[:2] == expected[:2], "epochs that had ended keep their rows"
    for name in expected[2]:
        if name != "seconds" and not name.startswith("cost/"):
            assert float(rows[2][name]) == pytest.approx(float(expected[2][name]), rel=1e-2), name
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    weights = np.load(STORED / "resumed_weights.npz")
    assert last["epoch"] == 2
    assert list(last["state_dict"]) == weights.files
    for name, tensor in last["state_dict"].items():
        if name.removesuffix("conv.bias") + "adn.N.bias" in weights.files:
            continue  # normalisation removes this bias, so its gradient is rounding alone
        # Another processor rounds differently in each of the 15 steps.
        np.testing.assert_allclose(tensor, weights[name], atol=1e-4, err_msg=name)


def test_hsfs_preprocessing_trains_as_before(data: Path, outputs: Path) -> None:
    """Of scans that need no padding: no other number is drawn, and no voxel differs."""
    given = [f"datasets.main_path={data}", f"datasets.output_path={outputs}", "models.lr=1e-2"]
    length = ["datasets=tiny_source", "lightning.max_epochs=3", "preprocessing=hsf"]
    run = run_experiment(compose("train", [*given, *length, *FAST], CONF)).folder
    for row, expected in zip(
        _metrics(run / "metrics.csv"), _metrics(STORED / "source" / "metrics.csv"), strict=True
    ):
        for name in expected:
            if name != "seconds" and not name.startswith("cost/"):
                assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-4), name
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    stored = torch.load(STORED / "source" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last.keys() == stored["state_dict"].keys()
    for name, tensor in stored["state_dict"].items():
        if name.removesuffix("conv.bias") + "adn.N.bias" not in last:  # see above
            np.testing.assert_allclose(last[name], tensor, atol=1e-5, err_msg=name)


def test_old_runs_are_compared(old: Path) -> None:
    again = old / "again"
    shutil.copytree(old / "finetuned", again)
    compared = compare_runs([old / "finetuned", again], output=old / "comparison")
    with (old / "comparison" / "compare.csv").open() as file:
        names = [row["run"] for row in csv.DictReader(file)]
    assert names == ["pretrained", "finetuned", "again"]
    untouched, first, second = compared.figures
    assert first.dice == second.dice
    assert first.dice.mean > untouched.dice.mean


def test_fine_tuning_starts_from_an_old_model(old: Path, data: Path, outputs: Path) -> None:
    settings = compose(
        "finetune",
        [
            *("datasets=tiny", f"datasets.main_path={data}", f"datasets.output_path={outputs}"),
            f"finetuning.pretrained={old / 'finetuned'}",
            "lightning.max_epochs=1",
            *FAST,
        ],
        CONF,
    )
    result = run_experiment(settings)
    stored = read_scores(STORED / "finetuned" / "validation_scores.csv")
    assert [row.score.dice for row in result.before] == pytest.approx(
        [row.score.dice for row in stored], abs=1e-3
    )


def _metrics(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
