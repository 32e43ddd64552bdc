"""Which process of a run this is, and how all of them come to share one folder.

Lightning starts the further processes of a run itself, and they inherit the folder
through the environment. Under `srun` or `torchrun` all start at once: the first one
leaves a note in the output folder, and the others wait for it.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from hsf_finetune.errors import OutputError
from hsf_finetune.files import write_json

_INHERITED = "HSF_FINETUNE_RUN"
_JOB = (
    ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
)
"""What tells one start of several processes from every other, by launcher."""
_STALE_S = 600.0
_started = time.time()


def rank() -> int:
    """Number of this process among those of the run; 0 leads."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def follower() -> bool:
    """Whether another process leads this run: it alone makes folders, writes and talks."""
    return rank() > 0


def lead(note: dict[str, Any], output_path: Path) -> None:
    """Tells the run's other processes, started or yet to start, where it is."""
    os.environ[_INHERITED] = json.dumps(note)
    file = _meeting_point(output_path)
    if file is not None:
        write_json(file, note)


def follow(output_path: Path, timeout_s: float = 600.0) -> dict[str, Any]:
    """What the leading process says of the run.

    Raises:
        OutputError: it has not said anything in time.
    """
    if _INHERITED in os.environ:
        inherited: dict[str, Any] = json.loads(os.environ[_INHERITED])
        return inherited
    file = _meeting_point(output_path)
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


def forget(output_path: Path) -> None:
    """Removes a note that an earlier start may have left, and that of a finished run."""
    file = _meeting_point(output_path)
    if file is not None and not follower():
        file.unlink(missing_ok=True)


def _meeting_point(output_path: Path) -> Path | None:
    for names in _JOB:
        if os.environ.get(names[0]):
            key = "_".join(os.environ.get(name, "0") for name in names)
            return output_path / f".run_{re.sub(r'[^0-9A-Za-z]+', '_', key)}.json"
    if "RANK" in os.environ:
        return output_path / f".run_{os.environ.get('MASTER_PORT', '0')}.json"
    return None
