"""train, finetune, plan, predict and evaluate on a tiny cohort, as they are typed."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from hsf_finetune.cli.main import main
from tests.conftest import CONF, FAST

REPOSITORY = Path(__file__).parents[2]
FILES = {
    "config.yaml",
    "environment.json",
    "splits.json",
    "ledger.csv",
    "check.json",
    "calibration.csv",
    "census.csv",
    "transfer.json",
    "schedule.json",
    "schedule.png",
    "forecast.json",
    "metrics.csv",
    "preview.png",
    "pretrained_scores.csv",
    "validation_scores.csv",
    "result.json",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "checkpoints/previous.ckpt",
}


def exit_code(*arguments: object) -> int:
    """What a shell would see of `hsf-finetune ARGUMENTS`."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.fixture(scope="session")
def finetuned(source_run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of the source model, fine-tuned to two classes."""
    outputs = tmp_path_factory.mktemp("finetuned")
    assert not exit_code(
        "finetune",
        "--config-dir",
        CONF,
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={outputs}",
        f"finetuning.pretrained={source_run}",
        "finetuning.derive_from={anterior: blob, posterior: blob}",
        "finetuning.out_channels=3",
        "finetuning.unfreeze_frequency=1",
        "finetuning.mode=both",
        "models.lr=1e-2",
        *FAST,
    )
    (run,) = outputs.iterdir()
    return run


def test_a_run_folder_holds_everything(finetuned: Path) -> None:
    found = {p.relative_to(finetuned).as_posix() for p in finetuned.rglob("*") if p.is_file()}
    assert found == FILES


def test_its_configuration_is_the_one_that_was_asked_for(finetuned: Path, data: Path) -> None:
    config = yaml.safe_load((finetuned / "config.yaml").read_text())
    assert config["datasets"]["main_path"] == str(data)
    assert config["models"]["lr"] == 0.01
    assert config["datasets"]["datasets"]["tiny"]["labels_names"] == {
        "1": "anterior",
        "2": "posterior",
    }


def test_its_schedule_has_an_epoch_for_each_block(finetuned: Path) -> None:
    with (finetuned / "metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
    assert epochs == [0, 1, 2, 3]


def test_its_ledger_and_split_account_for_every_file(finetuned: Path, data: Path) -> None:
    with (finetuned / "ledger.csv").open() as file:
        rows = list(csv.reader(file))
    assert sum(str(data) in " ".join(row) or "sub-" in " ".join(row) for row in rows[1:]) == 10
    split = json.loads((finetuned / "splits.json").read_text())
    assert (len(split["train"]), len(split["validation"]), split["test"]) == (3, 2, [])


def test_its_checkpoints_are_plain_and_say_what_they_are(finetuned: Path) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(finetuned / "checkpoints" / f"{name}.ckpt", weights_only=True)
        card = checkpoint["hsf_finetune"]
        assert card["classes"] == ["background", "anterior", "posterior"]
        assert card["label_values"] == {"background": 0, "anterior": 10, "posterior": 20}
    assert checkpoint["epoch"] == 3, "last.ckpt is of the last epoch, not of the last better one"


def test_its_scores_before_and_after_are_of_the_same_cases(finetuned: Path) -> None:
    before, after = (
        [(row["case"], row["class"]) for row in csv.DictReader((finetuned / name).open())]
        for name in ("pretrained_scores.csv", "validation_scores.csv")
    )
    assert before == after
    assert len(before) == 4
    assert set(json.loads((finetuned / "result.json").read_text())) >= {"pretrained", "best_epoch"}


def test_its_weights_came_from_the_source(finetuned: Path, source_run: Path) -> None:
    receipt = json.loads((finetuned / "transfer.json").read_text())
    digest = hashlib.sha256((source_run / "checkpoints" / "best.ckpt").read_bytes()).hexdigest()
    assert receipt["digest"] == digest
    assert receipt["counts"] == {"loaded": 21, "remapped": 2}


def test_an_earlier_run_is_never_overwritten(source_run: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        "train",
        "--config-dir",
        CONF,
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"run_dir={run}",
        "lightning.max_epochs=1",
        *FAST,
    ]
    assert exit_code(*command) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert exit_code(*command) == 2
    assert exit_code(*command, "resume=auto", "seed=1") == 2
    assert exit_code(*command, f"resume={run}") == 2, "it has ended"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_sweep_makes_a_run_folder_each(data: Path, outputs: Path) -> None:
    assert not exit_code(
        "train",
        "--config-dir",
        CONF,
        "datasets=tiny_hdf5",
        f"datasets.main_path={data}",
        f"datasets.output_path={outputs}",
        "lightning.max_epochs=1",
        *FAST,
        "-m",
        "seed=0,1",
    )
    runs = sorted(p.parent for p in outputs.glob("*/result.json"))
    seeds = [yaml.safe_load((run / "config.yaml").read_text())["seed"] for run in runs]
    assert sorted(seeds) == [0, 1]


def test_plan_prints_the_schedule_and_writes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["datasets=tiny", f"datasets.main_path={data}", *FAST]
    assert exit_code("plan", *overrides, "--config-dir", CONF, "finetuning.mode=encoder") == 0
    text = capsys.readouterr().out
    assert "Schedule: hsf" in text
    assert "encoder1" in text
    assert not list(tmp_path.iterdir())


def test_evaluate_a_run_on_a_side_of_its_split(
    finetuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("evaluate", finetuned, "-o", "scores.csv") == 0
    assert (tmp_path / "scores.csv").read_text() == (
        finetuned / "validation_scores.csv"
    ).read_text(), "the same cases, the same model, the same figures"
    assert exit_code("evaluate", finetuned, "-o", "scores.csv") == 2, "never overwritten"
    assert exit_code("evaluate", finetuned, "--split", "train", "-o", "train.csv") == 0
    assert len((tmp_path / "train.csv").read_text().splitlines()) == 1 + 3 * 2
    assert exit_code("evaluate", finetuned, "--split", "test") == 2


def test_predict_then_evaluate_folders(finetuned: Path, data: Path, tmp_path: Path) -> None:
    scans, labels, out = tmp_path / "scans", tmp_path / "labels", tmp_path / "out"
    for number in (4, 5):
        for kind, folder in (("T2w", scans), ("dseg", labels)):
            target = folder / f"sub-{number:02d}" / "scan.nii.gz"
            target.parent.mkdir(parents=True)
            source = data / "tiny" / f"sub-{number:02d}" / f"sub-{number:02d}_{kind}.nii.gz"
            target.write_bytes(source.read_bytes())
    assert exit_code("predict", finetuned, scans, "-o", out) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.nii.gz")) == [
        "sub-04/scan.nii.gz",
        "sub-05/scan.nii.gz",
    ]
    scores = tmp_path / "scores.csv"
    names = "10=anterior,20=posterior"
    assert exit_code("evaluate", out, labels, "--labels", names, "-o", scores) == 0
    assert len(scores.read_text().splitlines()) == 1 + 2 * 2


def test_the_script_runs_from_any_folder(data: Path, tmp_path: Path) -> None:
    done = shell(
        tmp_path,
        "finetune.py",
        *("--config-dir", CONF, "datasets=tiny_hdf5", f"datasets.main_path={data}", *FAST),
        *("finetuning.pretrained=none", "lightning.max_epochs=1", "finetuning.depth=0"),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (run,) = (tmp_path / "outputs").iterdir()
    assert f"everything is in {run}\n" in done.stdout
    assert f"hsf-finetune predict {run} SCANS" in done.stdout


@pytest.mark.parametrize("script", ["finetune.py", "train.py"])
def test_the_scripts_help_and_explain(script: str, tmp_path: Path) -> None:
    helped = shell(tmp_path, script, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert f"python {script}" in helped.stdout
    wrong = shell(tmp_path, script, "models.lr=fast")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: a setting is wrong:\n  models.lr: ")
    assert not list(tmp_path.iterdir())


def shell(folder: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, REPOSITORY / script, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_class_that_no_label_shows_must_be_allowed(
    data: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        *("train", "--config-dir", CONF, "datasets=tiny_source", *FAST),
        *(f"datasets.main_path={data}", f"datasets.output_path={outputs}"),
        *("+datasets.datasets.tiny.labels_names.9=ghost", "lightning.max_epochs=1"),
    )
    assert exit_code(*command) == 2
    assert "no label of a training case shows ghost" in capsys.readouterr().err
    assert not outputs.exists()
    assert exit_code(*command, "datasets.allow_unsupervised=[ghost]") == 0
    assert "Label census" in capsys.readouterr().out
