"""A run whose files were damaged, removed or added to while it was interrupted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.experiment.resume import lock_run
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.system.errors import ConfigError, DataError
from hsf_finetune.system.run_folder import RunFolder
from tests.conftest import CONF, FAST, SUBJECTS, save_nifti, tiny_case
from tests.training.killing import run_until_killed


def settings_of(data: Path, run_dir: Path, *overrides: str) -> Settings:
    given = [
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={run_dir.parent}",
        f"run_dir={run_dir}",
        "lightning.max_epochs=4",
        *FAST,
        *overrides,
    ]
    return compose("train", given, CONF)


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed in its third epoch, and with its data."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copytree(data, folder / "now" / "data")
    run_until_killed(settings_of(folder / "now" / "data", folder / "now" / "run"), 2)
    shutil.copytree(folder / "now", folder / "kept")
    return folder


@pytest.fixture
def interrupted(killed: Path) -> Path:
    """The run, as it was killed and at the same place for each test."""
    shutil.rmtree(killed / "now")
    shutil.copytree(killed / "kept", killed / "now")
    return killed / "now" / "run"


@pytest.fixture
def own_data(interrupted: Path) -> Path:
    """Its data, which a test may change."""
    return interrupted.with_name("data")


def resume(data: Path, folder: Path) -> Path:
    return run_experiment(settings_of(data, folder, f"resume={folder}")).folder


def add_case(data: Path, number: int) -> None:
    image, label = tiny_case(number)
    folder = data / "tiny" / f"sub-{number:02d}"
    save_nifti(folder / f"sub-{number:02d}_T2w.nii.gz", image)
    save_nifti(folder / f"sub-{number:02d}_dseg.nii.gz", label)


def sides(folder: Path) -> dict[str, list[str]]:
    split = json.loads((folder / "splits.json").read_text())
    return {side: split[side] for side in ("train", "validation", "test")}


def test_a_scan_that_was_added_is_left_out_and_listed(
    own_data: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (interrupted / "splits.json").read_bytes()
    add_case(own_data, SUBJECTS + 1)
    resume(own_data, interrupted)
    assert (interrupted / "splits.json").read_bytes() == before
    assert "1 case that the run was started without is not used" in capsys.readouterr().out
    assert "added after the run was started" in (interrupted / "ledger.csv").read_text()


def test_a_scan_that_was_removed_is_refused_by_name(own_data: Path, interrupted: Path) -> None:
    before = sides(interrupted)
    shutil.rmtree(own_data / "tiny" / "sub-02")
    with pytest.raises(DataError, match="sub-02"):
        resume(own_data, interrupted)
    assert sides(interrupted) == before


@pytest.mark.parametrize("damage", ["cut", "removed", "overwritten"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    own_data: Path, interrupted: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    last = interrupted / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    if damage == "removed":
        last.unlink()
    else:
        last.write_bytes(content[: len(content) // 2] if damage == "cut" else b"x" * len(content))
    resume(own_data, interrupted)
    assert "resuming from previous.ckpt" in capsys.readouterr().out
    assert torch.load(last, weights_only=True)["epoch"] == 3


def test_no_readable_checkpoint_is_an_error(own_data: Path, interrupted: Path) -> None:
    for name in ("last", "previous"):
        (interrupted / "checkpoints" / f"{name}.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match="no checkpoint of the run can be read"):
        resume(own_data, interrupted)


def test_a_missing_or_damaged_best_checkpoint_is_noticed_at_once(
    own_data: Path, interrupted: Path
) -> None:
    best = interrupted / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="best epoch is damaged"):
        resume(own_data, interrupted)
    best.unlink()
    with pytest.raises(ConfigError, match="best epoch is missing"):
        resume(own_data, interrupted)


def test_a_damaged_split_is_refused(own_data: Path, interrupted: Path) -> None:
    for content in ("", '{"train": ["', "[]", "{}"):
        (interrupted / "splits.json").write_text(content)
        with pytest.raises(ConfigError, match=r"splits.json of the run is damaged"):
            resume(own_data, interrupted)


def test_damaged_metrics_are_put_aside(
    own_data: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (interrupted / "metrics.csv").write_bytes(b"\xff\x00x" * 40)
    resume(own_data, interrupted)
    assert "metrics.csv cannot be read; it is now damaged_metrics.csv" in capsys.readouterr().out


def test_rows_that_are_missing_from_metrics_are_said(
    own_data: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (interrupted / "metrics.csv").unlink()
    resume(own_data, interrupted)
    assert "metrics.csv lacks 2 epochs of 2" in capsys.readouterr().out


def test_half_written_files_of_a_killed_process_are_removed(
    own_data: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = interrupted / "checkpoints" / ".partial-1234.ckpt"
    left.write_bytes(b"half")
    resume(own_data, interrupted)
    assert not left.exists()
    said = capsys.readouterr().out
    assert "resuming run" in said
    # What the run printed when it began is not printed once more.
    assert "Label census" not in said
    assert "Schedule" not in said


def test_two_processes_do_not_work_on_one_run(own_data: Path, interrupted: Path) -> None:
    with (
        FileLock(interrupted / ".lock"),
        pytest.raises(ConfigError, match="another process works on this run"),
    ):
        resume(own_data, interrupted)


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_the_lock_is_removed_before_another_process_can_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, release = [], FileLock.release

    def look(lock: FileLock, *args: Any, **more: Any) -> None:
        if lock.is_locked:
            seen.append((tmp_path / ".lock").exists())
        release(lock, *args, **more)

    monkeypatch.setattr(FileLock, "release", look)
    with lock_run(RunFolder(tmp_path)):
        assert (tmp_path / ".lock").exists()
    assert seen == [False]
    assert not (tmp_path / ".lock").exists()
