"""Which process of a run this is, and how all of them share one folder.

Lightning starts the further processes of a run itself, and they inherit the folder
through the environment. Under `srun` or `torchrun` all start at once: the first one
leaves a note in the output folder when it is ready to train, and the others wait for it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.errors import OutputError

_INHERITED = "HSF_FINETUNE_RUN"
_JOB = (
    ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
)
"""Variables of a launcher that identify one start of several processes."""
_STALE_S = 600.0
_started = time.time()
_runs = itertools.count(1)
"""The number of a run among those of this process, the same in every process."""


def rank() -> int:
    """Number of this process among those of the run; the main process is 0."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def is_main_process() -> bool:
    """Whether this process is the one of a run that makes folders, writes files and prints."""
    return rank() == 0


def publish_run(note: dict[str, Any], output_path: Path) -> None:
    """Tells the other processes of the run where it writes; all of them train from then on."""
    os.environ[_INHERITED] = json.dumps(note)
    file = _next_note(output_path)
    if file is not None:
        write_json(file, note)


def wait_for_run(output_path: Path, timeout_s: float = 3600.0) -> dict[str, Any]:
    """The note of the main process about the run, once it is ready to train.

    It checks the data and scores the untouched model before, which may take long.

    Raises:
        OutputError: it has not written one in time.
    """
    if _INHERITED in os.environ:
        inherited: dict[str, Any] = json.loads(os.environ[_INHERITED])
        return inherited
    file = _next_note(output_path)
    until = time.monotonic() + timeout_s
    while file is not None and time.monotonic() < until:
        if file.exists() and file.stat().st_mtime > _started - _STALE_S:
            note: dict[str, Any] = json.loads(file.read_text())
            return note
        time.sleep(0.2)
    raise OutputError(
        "the first process of the run did not say where it writes",
        file=file,
        fix="look at its messages; all processes need the same datasets.output_path on a disk "
        "that they share",
    )


def remove_published_run(output_path: Path) -> None:
    """Removes the notes of this start of several processes, or of an earlier one like it.

    The variable has to go as well: every process that this one starts inherits it.
    """
    if not is_main_process():
        return
    os.environ.pop(_INHERITED, None)
    start = _name_start()
    for file in output_path.glob(f"{start}_*.json") if start else ():
        file.unlink(missing_ok=True)


def _next_note(output_path: Path) -> Path | None:
    """The file with the note about this process's next run; None without a launcher."""
    start = _name_start()
    return output_path / f"{start}_{next(_runs)}.json" if start else None


def _name_start() -> str | None:
    for names in _JOB:
        if os.environ.get(names[0]):
            key = "_".join(os.environ.get(name, "0") for name in names)
            return f".run_{re.sub(r'[^0-9A-Za-z]+', '_', key)}"
    return f".run_{os.environ.get('MASTER_PORT', '0')}" if "RANK" in os.environ else None
