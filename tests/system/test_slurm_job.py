"""A job of SLURM, seen through its environment and its signals, without a SLURM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hsf_finetune.system.slurm_job import (
    EXIT_PREEMPTED,
    job_before,
    queue_again_when_preempted,
    slurm_job,
)


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, "12"),
        (
            {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"},
            "12_3",
        ),
        ({"SLURM_JOB_ID": "12; rm"}, None),
    ],
)
def test_a_job_keeps_its_number(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], job: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm_job() == job
    assert job_before() is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert job_before() == job


PREEMPTED = """
import signal, time
from hsf_finetune.system.slurm_job import queue_again_when_preempted

before = signal.getsignal(signal.SIGUSR1)
try:
    with queue_again_when_preempted(True):
        signal.raise_signal(signal.SIGUSR1)
        time.sleep(10)  # Python may run the handler a little later
finally:
    assert signal.getsignal(signal.SIGUSR1) == before
"""
"""In a process of its own: a test's process has signal stacks of the libraries of other tests."""


@pytest.mark.parametrize("fails", [False, True], ids=["queued", "refused"])
def test_a_signal_queues_the_job_again_and_ends_the_run(tmp_path: Path, fails: bool) -> None:
    scontrol = tmp_path / "scontrol"
    answer = "echo 'Job is disabled' >&2; exit 1" if fails else f"echo $* > {tmp_path}/asked"
    scontrol.write_text(f"#!/bin/sh\n{answer}\n")
    scontrol.chmod(0o755)
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    ended = subprocess.run(
        [sys.executable, "-c", PREEMPTED],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == ""
    assert ended.returncode == EXIT_PREEMPTED == 138
    if fails:
        assert "Job is disabled" in ended.stdout
        assert "resume=auto" in ended.stdout
    else:
        assert (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.parametrize("job", [None, "7"])
def test_the_signal_is_left_alone_outside_of_slurm_and_unless_wanted(
    monkeypatch: pytest.MonkeyPatch, job: str | None
) -> None:
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    before = signal.getsignal(signal.SIGUSR1)
    with queue_again_when_preempted(wanted=job is None):
        assert signal.getsignal(signal.SIGUSR1) == before
