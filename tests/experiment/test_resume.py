"""Every run has a folder of its own, and an interrupted one is found again."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hsf_finetune.cli.main import explain
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.experiment.active_run import ActiveRun
from hsf_finetune.experiment.resume import (
    RESULT,
    RunFolder,
    find_run,
    open_folder,
    publish_run_dir,
    withdraw_run_dir_afterwards,
)
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.system import run_folder
from hsf_finetune.system.errors import ConfigError, OutputError
from hsf_finetune.training.module import SegmentationModule
from tests.conftest import CONF, FAST


def settings(outputs: Path, *overrides: str) -> Settings:
    return compose(
        "finetune", ["datasets=tiny", f"datasets.output_path={outputs}", *overrides], CONF
    )


def ended(run: RunFolder) -> RunFolder:
    run.file(RESULT).write_text("{}")
    return run


def test_runs_of_the_same_second_get_different_folders(outputs: Path) -> None:
    runs = [open_folder(settings(outputs), None) for _ in range(5)]
    assert len({run.path for run in runs}) == 5
    assert all(run.path.parent == outputs for run in runs)
    assert all("_finetune_tiny" in run.path.name for run in runs)


def test_the_settings_come_back_from_the_folder(outputs: Path) -> None:
    asked = settings(outputs, "models.lr=3e-5", "finetuning.derive_from={anterior: blob}")
    run = open_folder(asked, None)
    assert Settings.model_validate(yaml.safe_load(run.file("config.yaml").read_text())) == asked
    environment = json.loads(run.file("environment.json").read_text())
    assert environment["packages"]["torch"]


def test_the_first_command_of_a_run_stays_first(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_folder(settings(outputs), None)
    asked = settings(outputs, f"resume={run.path}")
    for number, job in enumerate(("7", "8")):
        monkeypatch.setattr(sys, "argv", ["finetune.py", f"again={number}"])
        monkeypatch.setattr(run_folder, "slurm_job", lambda job=job: job)
        open_folder(asked, RunFolder(run.path, resumed=True))
    kept = json.loads(run.file("environment.json").read_text())
    assert kept["command"] != ["finetune.py", "again=0"]
    again = [one["command"][1] for one in kept["resumed"]]
    assert again == ["again=0", "again=1"]
    assert run_folder.job_of(run.path) == "8"
    run.file("environment.json").write_text("{")
    open_folder(asked, RunFolder(run.path, resumed=True))
    assert json.loads(run.file("environment.json").read_text())["command"][1] == "again=1"
    assert run.file("damaged_environment.json").read_text() == "{"


def test_a_name_is_made_fit_for_a_folder(outputs: Path) -> None:
    assert open_folder(settings(outputs, "name='a/b: c'"), None).path.name.endswith(
        "_finetune_a_b_c"
    )


def test_a_given_folder_is_never_used_twice(outputs: Path) -> None:
    asked = settings(outputs, f"run_dir={outputs / 'mine'}")
    run = open_folder(asked, None)
    assert run.path == outputs / "mine"
    before = run.file("environment.json").read_bytes()
    with pytest.raises(ConfigError, match=r"in use[\s\S]*resume="):
        open_folder(asked, None)
    assert run.file("environment.json").read_bytes() == before
    (outputs / "file").touch()
    with pytest.raises(ConfigError, match="in use"):
        open_folder(settings(outputs, f"run_dir={outputs / 'file'}"), None)


@pytest.mark.parametrize("left", [(), (".partial-1a2b.yaml",)])
def test_an_empty_given_folder_is_taken(outputs: Path, left: tuple[str, ...]) -> None:
    """A run that was killed while it wrote its first file leaves a part of it."""
    (outputs / "mine").mkdir(parents=True)
    for name in left:
        (outputs / "mine" / name).touch()
    assert (
        open_folder(settings(outputs, f"run_dir={outputs / 'mine'}"), None).path == outputs / "mine"
    )


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        open_folder(settings(tmp_path / "file" / "outputs"), None)


def test_nothing_is_left_of_what_called_other_processes_in(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(outputs)
    with withdraw_run_dir_afterwards(asked):
        run = open_folder(asked, None)
        publish_run_dir(run, asked)
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert open_folder(asked, None) == run, "a process that Lightning starts inherits the run"
        monkeypatch.delenv("LOCAL_RANK")
    assert "HSF_FINETUNE_RUN" not in os.environ


def test_processes_that_start_at_once_meet_run_by_run(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(outputs)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "12345")
    outputs.mkdir(parents=True, exist_ok=True)
    stale = outputs / ".run_12345_1.json"
    stale.write_text('{"path": "gone", "resumed": true, "longer": null}')
    with withdraw_run_dir_afterwards(asked):
        assert not stale.exists(), "what a run that was killed has left"
        publish_run_dir(open_folder(asked, None), asked)
        (note,) = outputs.glob(".run_12345_*.json")
        assert json.loads(note.read_text())["resumed"] is False
    assert not [*outputs.glob(".run*")]


def test_without_resume_no_run_is_looked_for(outputs: Path) -> None:
    open_folder(settings(outputs), None)
    assert find_run(settings(outputs)) is None


def test_auto_finds_the_latest_unfinished_run_of_the_same_settings(outputs: Path) -> None:
    auto = settings(outputs, "resume=auto")
    assert find_run(auto) is None, "nothing to resume: a new run"
    first = open_folder(settings(outputs), None)
    ended(open_folder(settings(outputs), None))
    open_folder(settings(outputs, "seed=1"), None)
    (outputs / "stray").mkdir()
    (outputs / "stray" / "config.yaml").write_text("a: [1")
    (outputs / "file").touch()
    found = find_run(auto)
    assert found == RunFolder(first.path, resumed=True)
    assert found.last is None, "no epoch has ended"
    found.checkpoints.mkdir()
    (found.checkpoints / "last.ckpt").touch()
    assert found.last == found.checkpoints / "last.ckpt"
    ended(first)
    assert find_run(auto) is None


def test_auto_finds_a_given_folder(outputs: Path) -> None:
    given = f"run_dir={outputs / 'elsewhere' / 'mine'}"
    run = open_folder(settings(outputs, given), None)
    assert find_run(settings(outputs, given, "resume=auto")) == RunFolder(run.path, resumed=True)


@pytest.mark.parametrize("what", ["", "checkpoints/last.ckpt"])
def test_a_run_is_resumed_by_its_folder_or_checkpoint(outputs: Path, what: str) -> None:
    run = open_folder(settings(outputs), None)
    run.checkpoints.mkdir()
    torch.save({"epoch": 0, "callbacks": {}}, run.checkpoints / "last.ckpt")
    found = find_run(settings(outputs, f"resume={run.path / what}"))
    assert found == RunFolder(run.path, resumed=True)


def test_what_does_not_change_the_result_may_change(outputs: Path) -> None:
    run = open_folder(settings(outputs), None)
    changed = ("datasets.num_workers=2", "lightning.threads=3", "logger=csv", "name=x")
    assert find_run(settings(outputs, f"resume={run.path}", *changed)) is not None


def test_other_settings_are_refused_and_listed(outputs: Path) -> None:
    run = open_folder(settings(outputs), None)
    with pytest.raises(ConfigError) as caught:
        find_run(settings(outputs, f"resume={run.path}", "models.lr=1", "seed=4"))
    assert "models.lr: 0.001 in that run, 1.0 now" in str(caught.value)
    assert "seed: 0 in that run, 4 now" in str(caught.value)


def test_a_setting_that_a_run_did_not_know_yet_had_its_default(outputs: Path) -> None:
    run = open_folder(settings(outputs), None)
    written = yaml.safe_load(run.file("config.yaml").read_text())
    del written["weights"]["head"]
    run.file("config.yaml").write_text(yaml.safe_dump(written))
    again = f"resume={run.path}"
    assert find_run(settings(outputs, again)) == RunFolder(run.path, resumed=True)
    with pytest.raises(ConfigError, match=r"weights\.head"):
        find_run(settings(outputs, again, "finetuning.head=fresh"))


def test_what_cannot_be_resumed(outputs: Path) -> None:
    run = open_folder(settings(outputs), None)
    run.checkpoints.mkdir()
    (run.checkpoints / "best.ckpt").touch()
    for what, said in (
        (run.checkpoints / "best.ckpt", "only last.ckpt"),
        (outputs / "nowhere", "no such file or folder"),
        (outputs, "no run to resume"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_run(settings(outputs, f"resume={what}"))
    ended(run)
    with pytest.raises(ConfigError, match=r"has ended[\s\S]*finetuning\.pretrained="):
        find_run(settings(outputs, f"resume={run.path}"))


@pytest.mark.parametrize("fold", ["null", "all"])
def test_an_interruption_names_the_run_to_resume(
    data: Path,
    outputs: Path,
    fold: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(run: ActiveRun) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ActiveRun, "begin", interrupt)
    given = [f"datasets.main_path={data}", f"datasets.fold={fold}", "finetuning.pretrained=none"]
    asked = settings(outputs, *FAST, *given, f"run_dir={outputs / 'mine'}")
    assert explain(lambda: bool(run_experiment(asked))) == 130
    said = capsys.readouterr().err
    assert said == f"interrupted; continue the run with resume={outputs / 'mine'}\n"


@pytest.mark.parametrize("hook", ["training_step", "validation_step"])
def test_training_ends_after_the_step_of_an_interrupt(
    data: Path, outputs: Path, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps, mine = getattr(SegmentationModule, hook), [], outputs / "mine"

    def press(self: SegmentationModule, batch: Any, batch_idx: int) -> Any:
        steps.append(self.current_epoch)
        if self.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, batch_idx)

    given = [f"datasets.main_path={data}", "finetuning.pretrained=none", "lightning.max_epochs=3"]
    asked = settings(outputs, *FAST, *given, f"run_dir={mine}")
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(SegmentationModule, hook, press)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_experiment(asked)
    monkeypatch.undo()
    assert str(caught.value) == f"continue the run with resume={mine}"
    assert steps.count(1) == 1
    assert signal.getsignal(signal.SIGINT) == before
    assert run_experiment(settings(outputs, *FAST, *given, f"resume={mine}")).folder == mine
