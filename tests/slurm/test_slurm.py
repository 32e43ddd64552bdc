"""Jobs of SLURM that are preempted continue, and sweeps are submitted as arrays of jobs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from hsf_finetune.inference.scan_shards import Shard
from tests.conftest import CONF, FAST, save_nifti, tiny_case
from tests.inference.test_scan_shards import contents

pytestmark = pytest.mark.clients

ROOT = CONF.parents[1]
PYTHON = os.environ.get("HSF_FINETUNE_ENV_SLURM", "")
"""An environment with the extras slurm and optuna, beside those of the tests."""
WAIT_S = 900


@pytest.fixture(scope="module", autouse=True)
def _slurm() -> None:
    """A SLURM that answers; without one, and where none can be started, the tests are skipped."""
    script = Path(__file__).with_name("start_one_node")
    started = subprocess.run([script], capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.skip(f"no SLURM: {(started.stdout + started.stderr).strip().splitlines()[-1]}")


@pytest.fixture
def python() -> Path:
    """The interpreter of an environment with the launcher and the sweeper."""
    if not PYTHON:
        pytest.skip("HSF_FINETUNE_ENV_SLURM names no environment; see make test-clients")
    return Path(PYTHON) / "bin" / "python"


def settings(data: Path, outputs: Path, *more: str) -> list[str]:
    """The settings of a short run of the tiny cohort."""
    where = [f"datasets.main_path={data}", f"datasets.output_path={outputs}"]
    short = ["finetuning.pretrained=none", "check=off", "lightning=slurm", "datasets=tiny"]
    return ["finetune", "--config-dir", str(CONF), *short, *where, *FAST, *more]


def submit(folder: Path, arguments: Sequence[str], *options: str) -> str:
    """Submits a job; returns its number."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "job.sh"
    command = " ".join(f"'{one}'" for one in [sys.executable, "-m", "hsf_finetune", *arguments])
    script.write_text(
        f"#!/bin/bash\n#SBATCH --requeue --ntasks=1 --output={folder}/%a.log --open-mode=append\n"
        f"export PYTHONPATH='{ROOT}'\nexec {command.replace('TASK', chr(39) + '$SLURM_ARRAY_TASK_ID' + chr(39))}\n"
    )
    found = subprocess.run(
        ["sbatch", "--parsable", *options, script], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Looks every quarter of a second."""
    until = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < until, what
        time.sleep(0.25)


def wait_for_jobs(*jobs: str) -> None:
    """Until none of them waits or runs."""
    listed = ["squeue", "--noheader", "--format=%A", "--jobs", ",".join(jobs)]
    wait_until(lambda: not subprocess.check_output(listed, text=True).split(), f"jobs {jobs}")


def state_of(job: str) -> dict[str, str]:
    """What SLURM knows of a job."""
    text = subprocess.check_output(["scontrol", "show", "job", job], text=True)
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def waits_again(job: str) -> bool:
    """Whether a job was started, has ended, and is to be started again."""
    state = state_of(job)
    return state["Restarts"] == "1" and state["JobState"] == "PENDING"


def epochs_of(outputs: Path) -> int:
    """Epochs that the only run in a folder has behind it."""
    files = [*outputs.glob("*/metrics.csv")]
    return len(files[0].read_text().splitlines()) - 1 if files else 0


@pytest.mark.parametrize("kind", ["its time is nearly over", "preempted"])
def test_a_job_that_is_queued_again_ends_with_the_weights_of_one_that_is_not(
    data: Path, tmp_path: Path, kind: str
) -> None:
    epochs, runs = 30, {name: tmp_path / name for name in ("calm", "disturbed")}
    jobs = {
        name: submit(folder, settings(data, folder / "runs", f"lightning.max_epochs={epochs}"))
        for name, folder in runs.items()
    }
    job = jobs["disturbed"]
    wait_until(lambda: epochs_of(runs["disturbed"] / "runs") > 2, "the third epoch")
    if kind == "preempted":
        subprocess.run(["scontrol", "requeue", job], check=True)
    else:
        subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    wait_until(lambda: waits_again(job), "the job to be queued again")
    assert epochs_of(runs["disturbed"] / "runs") < epochs, "it was too late"
    # SLURM waits two minutes; and a job that starts in the second of its end has no valid credential
    subprocess.run(["scontrol", "update", f"job={job}", "StartTime=now+3"], check=True)
    wait_for_jobs(*jobs.values())
    log = (runs["disturbed"] / "4294967294.log").read_text()
    assert state_of(job)["ExitCode"] == "0:0", log
    assert "resuming" in log
    (calm,), (disturbed,) = ([*(folder / "runs").glob("*/")] for folder in runs.values())
    weights = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (calm, disturbed)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert json.loads((disturbed / "environment.json").read_text())["slurm_job"] == job


def test_an_array_of_folds_validates_each_subject_once(data: Path, tmp_path: Path) -> None:
    fold = ["datasets.folds=2", "datasets.fold=TASK", "name=fold_TASK", "lightning.max_epochs=1"]
    job = submit(tmp_path, settings(data, tmp_path / "runs", *fold), "--array=0-1")
    wait_for_jobs(job)
    logs = [(tmp_path / f"{number}.log").read_text() for number in range(2)]
    results = sorted((tmp_path / "runs").glob("*_fold_*/result.json"))
    assert len(results) == 2, logs
    splits = [json.loads((path.parent / "splits.json").read_text()) for path in results]
    first, second = ({*one["validation"]} for one in splits)
    assert not first & second
    assert all({*one["train"], *one["validation"]} == first | second for one in splits)


def test_an_array_of_jobs_segments_a_folder_as_one_call_does(
    source_run: Path, tmp_path: Path
) -> None:
    """Also where one of its jobs is preempted in the middle, and starts again."""
    scans, one, several = (tmp_path / name for name in ("scans", "one", "several"))
    for number in range(300):
        save_nifti(scans / f"sub-{number}_T2w.nii.gz", tiny_case(number)[0])
    given = ["predict", str(source_run), str(scans), "--engine", "torch", "-o"]
    job = submit(several, [*given, str(several / "out"), "--shard", "TASK/3"], "--array=1-3")
    first = f"{job}_1"

    def written_of_first() -> int:
        names = [Path(path.name) for path in (several / "out").glob("*.nii.gz")]
        return sum(map(Shard(1, 3).holds, names))

    part = sum(Shard(1, 3).holds(Path(path.name)) for path in scans.iterdir())
    wait_until(lambda: written_of_first() > 2, "scans of the first part")
    subprocess.run(["scontrol", "requeue", first], check=True)
    wait_until(lambda: waits_again(first), "the job to be queued again")
    assert written_of_first() < part, "it was too late"
    subprocess.run(["scontrol", "update", f"job={first}", "StartTime=now+3"], check=True)
    wait_for_jobs(job)
    logs = [(several / f"{number}.log").read_text() for number in (1, 2, 3)]
    assert any("all parts: 300 of 300 scans segmented" in text for text in logs), logs
    subprocess.run([sys.executable, "-m", "hsf_finetune", *given, str(one)], check=True)
    assert contents(several / "out") == contents(one)


def sweep(python: Path, folder: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Starts a sweep in a folder, in the environment that has its plugins."""
    return subprocess.Popen(
        [python, "-m", "hsf_finetune", *arguments, "-m"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def seeds_of(outputs: Path) -> list[int]:
    """Seeds of the runs in a folder that have ended."""
    runs = [yaml.safe_load(path.read_text()) for path in outputs.glob("*/config.yaml")]
    assert len(runs) == len([*outputs.glob("*/result.json")])
    return sorted(run["seed"] for run in runs)


def test_two_sweeps_in_one_folder_are_arrays_of_jobs_and_do_not_mix(
    data: Path, tmp_path: Path, python: Path
) -> None:
    jobs = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"]
    given = settings(data, tmp_path / "runs", "lightning.max_epochs=1", *jobs)
    both = [sweep(python, tmp_path, [*given, f"seed={seeds}"]) for seeds in ("0,1", "0,2")]
    said = [one.communicate(timeout=WAIT_S)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert seeds_of(tmp_path / "runs") == [0, 0, 1, 2]
    made_by = [
        json.loads(path.read_text())["slurm_job"]
        for path in (tmp_path / "runs").glob("*/environment.json")
    ]
    assert len({*made_by}) == 4, made_by
    assert all("_" in job for job in made_by)


def test_a_search_goes_on_where_it_ended(data: Path, tmp_path: Path, python: Path) -> None:
    study = tmp_path / "rates.db"
    search = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=1",
        "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.study_name=rates",
        f"hydra.sweeper.storage=sqlite:///{study}",
        "models.lr=tag(log,interval(1e-4,1e-2))",
    ]
    given = settings(data, tmp_path / "runs", "lightning.max_epochs=1", *search)
    for _ in range(2):
        one = sweep(python, tmp_path, given)
        said = one.communicate(timeout=WAIT_S)[0]
        assert one.returncode == 0, said
    with sqlite3.connect(study) as kept:
        states = kept.execute("SELECT state FROM trials").fetchall()
        direction = kept.execute("SELECT direction FROM study_directions").fetchone()
        values = {value for (value,) in kept.execute("SELECT value FROM trial_values")}
    assert (states, direction) == ([("COMPLETE",)] * 2, ("MAXIMIZE",))
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/result.json")]
    assert len(results) == 2
    assert all(0 <= value <= 1 for value in values)


SEED_STUDY = """
import sys
import optuna
study = optuna.create_study(study_name="rates", storage=sys.argv[1], direction="maximize")
space = {"models.lr": optuna.distributions.LogUniformDistribution(1e-4, 1e-2)}
for _ in range(int(sys.argv[2])):
    study.add_trial(optuna.trial.create_trial(
        value=0.9, intermediate_values={0: 0.9}, params={"models.lr": 1e-3}, distributions=space))
"""
"""Makes a study with trials whose first fold was a good one."""


@pytest.mark.parametrize(
    ("launcher", "before", "states"),
    [
        ("basic", 4, ["COMPLETE", "PRUNED"]),
        ("submitit_slurm", 5, ["PRUNED", "PRUNED"]),
    ],
)
def test_a_search_ends_trials_whose_first_fold_is_bad(
    data: Path, tmp_path: Path, python: Path, launcher: str, before: int, states: list[str]
) -> None:
    storage = f"sqlite:///{tmp_path / 'rates.db'}"
    subprocess.run([python, "-W", "ignore", "-c", SEED_STUDY, storage, str(before)], check=True)
    at_once = 2 if launcher == "submitit_slurm" else 1
    search = [
        *("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", f"hydra.sweeper.n_jobs={at_once}"),
        *("hydra.sweeper.study_name=rates", f"hydra.sweeper.storage={storage}"),
        f"hydra/launcher={launcher}",
        "models.lr=tag(log,interval(1e-4,1e-2))",
    ]
    folds = ["datasets.fold=all", "datasets.folds=2", "lightning.max_epochs=1"]
    one = sweep(python, tmp_path, settings(data, tmp_path / "runs", *folds, *search))
    said = one.communicate(timeout=WAIT_S)[0]
    assert one.returncode == 0, said
    with sqlite3.connect(tmp_path / "rates.db") as kept:
        found = kept.execute(
            "SELECT state, value, intermediate_value FROM trials JOIN trial_values USING (trial_id)"
            " JOIN trial_intermediate_values USING (trial_id) ORDER BY number"
        ).fetchall()[before:]
    assert [state for state, *_ in found] == states, said
    pruned = [
        json.loads(path.read_text())["pruned"]
        for path in sorted((tmp_path / "runs").glob("*/result.json"))
        if not (path.parent / "final").exists()
    ]
    first_folds = {first for state, value, first in found if state == "PRUNED" and value == first}
    assert {one["first_fold"] for one in pruned} == first_folds
    assert len(pruned) == states.count("PRUNED")
    assert {one["prune_below"] for one in pruned} == {0.9}
