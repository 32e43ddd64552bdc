"""A job of SLURM that is preempted, queued again, and continues what it had begun."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from hsf_finetune.system.interruption import end_with
from hsf_finetune.system.processes import is_main_process

EXIT_PREEMPTED = 128 + getattr(signal, "SIGUSR1", 10)


def slurm_job() -> str | None:
    """Number of this job, `12` or, of an array, `12_3`; None outside of SLURM.

    It stays the same when the job is queued again.
    """
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    return job if re.fullmatch(r"\d+(_\d+)?", job) else None


def job_before() -> str | None:
    """Number of this job, if SLURM has started it before."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return slurm_job() if count.isdigit() and int(count) > 0 else None


@contextmanager
def queue_again_when_preempted(wanted: bool) -> Iterator[None]:
    """On SIGUSR1 the main process has SLURM queue the job again, and this process ends.

    SLURM sends that signal some time before a job's time is over where it is asked to
    (`sbatch --signal`). Before a preemption it sends SIGTERM, as it does when a job is cancelled,
    and queues the job again by itself.

    Args:
        wanted: whether to do so; nothing happens outside of SLURM.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not (wanted and slurm_job() and in_main_thread and hasattr(signal, "SIGUSR1")):
        yield
        return
    before = signal.signal(signal.SIGUSR1, _queue_again)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _queue_again(*_: int | FrameType | None) -> NoReturn:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # SLURM may send it twice
    if is_main_process():
        command = ["scontrol", "requeue", str(slurm_job())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            said = str(error)
        if said:
            print(f"the job could not be queued again ({said}); resume=auto continues its run")
        else:
            print("the job is queued again, and will continue its run")
    end_with(SystemExit(EXIT_PREEMPTED))
