"""Which process of a run this is, and how all of them share one folder.

Lightning starts the further processes of a run itself, and they inherit the folder
through the environment. Under `srun` or `torchrun` all start at once: the first one
leaves a note in the output folder when it is ready to train, and the others wait for it.
Each of them also leaves a sign of life there, so that none waits for one that is dead.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
"""For how long a process waits for the first one to appear, and how old its note may be."""
BEAT_S = 5.0
"""Time from one sign of life to the next."""
_SILENT_BEATS = 12
"""Signs of life that may be missing."""
_GRACE_BEATS = 3
"""Signs of life after which a process ends itself that could not end by an error."""
_APART_S = 30.0
"""For how long one process of a start may begin after another one."""
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


@contextmanager
def share_run(output_path: Path) -> Iterator[None]:
    """While a run lasts, tells its other processes that this one lives, and how it failed.

    A process that has to wait for one that failed, or that gave no sign for a minute, ends. The
    notes of this run, or of an earlier one that was killed, are removed. Runs within a run
    share its signs.
    """
    meeting = _meeting_point(output_path)
    outermost = meeting is not None and _Presence.present is None
    _remove_notes(output_path)
    if meeting is None or not outermost:
        try:
            yield
        finally:
            _remove_notes(output_path)
        return
    presence = _Presence.present = _Presence(meeting)
    presence.start()
    try:
        yield
    except BaseException as error:
        presence.leave(str(error) or type(error).__name__)
        raise
    else:
        presence.leave()
    finally:
        _Presence.present = None
        _remove_notes(output_path)


def publish_run(note: dict[str, Any], output_path: Path) -> None:
    """Tells the other processes of the run where it writes; all of them train from then on."""
    os.environ[_INHERITED] = json.dumps(note)
    file = _meeting_point(output_path)
    if file is not None:
        write_json(_numbered(file, next(_runs)), note)


def wait_for_run(output_path: Path) -> dict[str, Any]:
    """The note of the main process about the run, once it is ready to train.

    It checks the data and scores the untouched model before, which may take long.

    Raises:
        OutputError: the main process failed, gives no sign of life, or never appeared.
    """
    if _INHERITED in os.environ:
        inherited: dict[str, Any] = json.loads(os.environ[_INHERITED])
        return inherited
    meeting = _meeting_point(output_path)
    file = _numbered(meeting, next(_runs)) if meeting else None
    presence = _Presence.present
    until = time.monotonic() + _STALE_S
    while file is not None and (time.monotonic() < until or (presence and presence.sees(0))):
        if file.exists() and file.stat().st_mtime > _started - _STALE_S:
            note: dict[str, Any] = json.loads(file.read_text())
            return note
        if presence and presence.problem:
            raise OutputError(
                f"this process waits for the first one in vain: {presence.problem}",
                file=file,
                fix="look at the messages of that process",
            )
        time.sleep(0.2)
    raise OutputError(
        "the first process of the run did not say where it writes",
        file=file,
        fix="look at its messages; all processes need the same datasets.output_path on a disk "
        "that they share",
    )


class _Presence(threading.Thread):
    """Writes a sign of life of this process, and looks at those of the others.

    A sign is a number that grows, since clocks of several machines differ.

    Args:
        meeting: beginning of the files' path.
    """

    present: _Presence | None = None
    """That of the run which this process makes."""

    def __init__(self, meeting: Path) -> None:
        super().__init__(name="sign of life", daemon=True)
        self._meeting = meeting
        self._own = meeting.with_name(f"{meeting.name}_alive_{rank()}")
        self._over = threading.Event()
        # Process -> its last sign, and how many are missing; None as long as it never changed,
        # as a file that an earlier run left.
        self._signs: dict[int, tuple[str, int | None]] = {}
        self.problem: str | None = None
        if is_main_process():
            for left in meeting.parent.glob(f"{meeting.name}_*"):
                if not _is_failure_of_this_start(left):
                    left.unlink(missing_ok=True)

    def run(self) -> None:
        """Until the run is over, or another process fails."""
        for beat in itertools.count():
            with suppress(OSError):
                self._own.parent.mkdir(parents=True, exist_ok=True)
                self._own.write_text(str(beat))
            if self._over.wait(BEAT_S):
                return
            with suppress(OSError):
                self.problem = self._find_problem()
            if self.problem:
                break
        if not self._over.wait(_GRACE_BEATS * BEAT_S):
            # The main thread waits in a library for the other process, and cannot be interrupted.
            print(f"error: this process cannot continue alone: {self.problem}", file=sys.stderr)
            sys.stderr.flush()
            self._sign_off(self.problem or "")
            with suppress(OSError):
                _remove_notes(self._meeting.parent)
            os._exit(1)

    def sees(self, process: int) -> bool:
        """Whether a process has given signs of life lately."""
        return self._signs.get(process, ("", None))[1] is not None and not self.problem

    def leave(self, failure: str = "") -> None:
        """Ends the signs, leaving the reason where the process failed."""
        self._over.set()
        self.join()
        self._sign_off(self.problem or failure)

    def _sign_off(self, failure: str) -> None:
        with suppress(OSError):
            self._own.unlink(missing_ok=True)
            alive, failed = self._files("alive"), self._files("failed")
            known = {rank(), *self._signs, *map(_process_of, [*alive, *failed])}
            if alive or len(known) < _world_size():
                # A process that has not begun yet reads it, too.
                if failure:
                    own = self._own.with_name(f"{self._meeting.name}_failed_{rank()}")
                    own.write_text(failure)
                return
            for file in failed:  # the last one clears up
                file.unlink(missing_ok=True)

    def _files(self, kind: str) -> list[Path]:
        return [*self._meeting.parent.glob(f"{self._meeting.name}_{kind}_*")]

    def _find_problem(self) -> str | None:
        for file in self._files("failed"):
            if _is_failure_of_this_start(file):
                return f"process {_process_of(file)} failed: {file.read_text()}"
        for file in self._files("alive"):
            process, sign = _process_of(file), file.read_text()
            before, missing = self._signs.get(process, (sign, None))
            if sign != before:
                missing = 0
            elif missing is not None:
                missing += 1
            self._signs[process] = (sign, missing)
            if missing == _SILENT_BEATS and process != rank():
                file.unlink(missing_ok=True)
                return f"process {process} gave no sign of life for {missing * BEAT_S:.0f} s"
        return None


def _is_failure_of_this_start(file: Path) -> bool:
    return "_failed_" in file.name and file.stat().st_mtime > _started - _APART_S


def _process_of(file: Path) -> int:
    return int(file.name.rpartition("_")[2])


def _world_size() -> int:
    """How many processes the launcher has started, as far as it says."""
    given = [os.environ.get(name, "") for name in ("WORLD_SIZE", "SLURM_NTASKS")]
    return next((int(text) for text in given if text.isdigit()), 1)


def _remove_notes(output_path: Path) -> None:
    """Removes the notes of this start of several processes, or of an earlier one like it.

    The variable has to go as well: every process that this one starts inherits it.
    """
    if not is_main_process():
        return
    os.environ.pop(_INHERITED, None)
    meeting = _meeting_point(output_path)
    if meeting is not None:
        for file in output_path.glob(f"{meeting.name}_*.json"):
            file.unlink(missing_ok=True)


def _numbered(meeting: Path, run: int) -> Path:
    return meeting.with_name(f"{meeting.name}_{run}.json")


def _meeting_point(output_path: Path) -> Path | None:
    for names in _JOB:
        if os.environ.get(names[0]):
            key = "_".join(os.environ.get(name, "0") for name in names)
            return output_path / f".run_{re.sub(r'[^0-9A-Za-z]+', '_', key)}"
    if "RANK" in os.environ:
        return output_path / f".run_{os.environ.get('MASTER_PORT', '0')}"
    return None
