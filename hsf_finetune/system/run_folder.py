"""The folder of a run: a place with known files. Which one a run gets is `experiment.resume`'s."""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import first_free, write_json
from hsf_finetune.system.errors import DataError
from hsf_finetune.system.processor import processor_name
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.slurm_job import slurm_job
from hsf_finetune.system.version import __version__

RESULT = "result.json"
"""File of a run that is written last."""
REPORT = "report.html"
"""File of a run or a comparison: what came of it, to read."""
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
"""Checkpoints of a run: of its best epoch, of its newest, and of the one before that."""
CALIBRATION = "calibration.csv"
"""File of a run: how often its model is right, by how sure it is, before and after calibration."""
ENVIRONMENT = "environment.json"
"""File of a run: versions, machine and command of the process that began it, and of each that resumed it."""
SPLITS = "splits.json"
"""File of a run: which case trains, validates or is only scored."""
LEDGER = "ledger.csv"
"""File of a run or a check: every file that was found, and its status."""
GIVEN = "corrections"
"""Folder of a run: corrected segmentations that it learns from, which are there before it begins."""

_INTERRUPTED = "interrupted_run"
_SUBJECTS = {"subjects": {"train": [str], "validation": [str], "test": [str]}}
_SPLIT = {"how": str, "held_out": bool, "train": [str], "validation": [str], "test": [str]}

_PACKAGES = ("hsf-finetune", "torch", "monai", "lightning", "torchio", "hydra-core", "nibabel")


def has_ended(folder: Path) -> bool:
    """Whether the folder has a run that has ended."""
    return (folder / RESULT).exists()


def was_pruned(folder: Path) -> bool:
    """Whether a run of folds ended after its first one, which was a bad one."""
    try:
        return "pruned" in json.loads((folder / RESULT).read_text())
    except (OSError, ValueError, TypeError):
        return False


@dataclass(frozen=True)
class RunFolder:
    """The folder that a run writes to.

    Args:
        path: the folder.
        resumed: whether an earlier start of the same run is resumed.
        longer: epochs that it had and has now, where it is resumed for more epochs.
    """

    path: Path
    resumed: bool = False
    longer: tuple[int, int] | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path | None:
        """The checkpoint to resume from, if there is one."""
        path = self.checkpoints / LAST
        return path if self.resumed and path.exists() else None

    def file(self, name: str) -> Path:
        """A file of the run."""
        return self.path / name


@contextmanager
def named_when_interrupted(run: RunFolder) -> Iterator[None]:
    """Tells `interrupted_run` which run an interruption ended; of runs in a run, the outermost.

    A KeyboardInterrupt says how to continue it, for those who call `finetune` from Python.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        vars(stop)[_INTERRUPTED] = run.path
        if isinstance(stop, KeyboardInterrupt):
            stop.args = (f"continue the run with resume={run.path}",)
        raise


def interrupted_run(stop: BaseException) -> Path | None:
    """Folder of the run that this interruption ended; None where there was none."""
    found: Path | None = vars(stop).get(_INTERRUPTED)
    return found


def read_split(run: Path) -> dict[str, Any]:
    """Which case of a run trains, validates or is only scored, from its splits.json.

    `folds` are there in a run of several, each with a split of its own.

    Raises:
        DataError: the file is missing, damaged or incomplete.
    """
    split = read_json(run / SPLITS, _SPLIT)
    own = {"folds": [{**_SPLIT, **_SUBJECTS}]} if "folds" in split else _SUBJECTS
    return read_json(run / SPLITS, own)


def gather_in_split(run: Path, parts: Sequence[Path], key: str) -> None:
    """Writes into a run's splits.json what those of its parts list under a key, if anything.

    Raises:
        DataError: a file is missing, damaged or incomplete.
    """
    found = {name for part in parts for name in read_json(part / SPLITS, {}).get(key, ())}
    if found:
        write_json(run / SPLITS, {**read_json(run / SPLITS, {}), key: sorted(found)})


def fold_folders(run: Path) -> list[Path]:
    """The folders of a run's folds, in their order; none for a run of a single split."""
    folders = [path for path in run.glob("fold_*") if (path / "config.yaml").exists()]
    return sorted(folders, key=lambda path: (len(path.name), path.name))


def whole_folds(run: Path) -> list[Path]:
    """The folders of a run's folds, all of which have ended; none for a run of a single split.

    Of a pruned run it is the fold that it ended after.

    Raises:
        DataError: a fold is missing or has not ended, or is none of the run's.
    """
    found, own = fold_folders(run), _planned_folds(run)
    if unfinished := _unfinished_folds(run):
        names = ", ".join(fold.name for fold in unfinished)
        is_run = (run / "config.yaml").exists()
        raise DataError(
            f"{names} {'is' if len(unfinished) == 1 else 'are'} missing or unfinished",
            file=run,
            found=", ".join(fold.name for fold in found if has_ended(fold)) or "no fold",
            expected=", ".join(fold.name for fold in own),
            fix=f"resume={run if is_run else unfinished[0]} finishes it",
        )
    if strange := [fold.name for fold in found if fold not in own]:
        raise DataError(
            "the folder of a run holds folds that are not its own",
            file=run,
            found=", ".join(strange),
            expected=", ".join(fold.name for fold in own) or "no fold: the run has a single split",
            fix="move them to another place",
        )
    return own


def lacks_folds(run: Path, prunes: bool) -> bool:
    """Whether folds of a run are still to be made, even if it has ended.

    Args:
        run: its folder.
        prunes: whether it is to end after a bad first fold.

    Raises:
        DataError: its splits.json is damaged or incomplete.
    """
    if was_pruned(run):
        return not prunes
    return (run / SPLITS).exists() and bool(_unfinished_folds(run))


def _unfinished_folds(run: Path) -> list[Path]:
    found = fold_folders(run)
    return [one for one in _planned_folds(run) if one not in found or not has_ended(one)]


def _planned_folds(run: Path) -> list[Path]:
    """The folders of the folds that a run makes; those that are there where a user put them."""
    if was_pruned(run) or not (run / "config.yaml").exists():
        return fold_folders(run)
    return [run / f"fold_{number}" for number in range(len(read_split(run).get("folds", [])))]


def runs_in(folder: Path, without: str | None = None) -> list[Path]:
    """The folder of a run, and those of the runs that it consists of, such as folds.

    Args:
        folder: of the run.
        without: name of the folders of runs that are left out.
    """
    inside = [path.parent for path in folder.glob("*/config.yaml")]
    parts = [part for path in inside if path.name != without for part in runs_in(path, without)]
    return [folder, *parts]


def epochs_done(folder: Path) -> int:
    """Epochs that a run has behind it, from its own metrics.csv."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return max((int(row["epoch"]) + 1 for row in csv.DictReader(file)), default=0)
    except (OSError, KeyError, ValueError):
        return 0


def planned_epochs(folder: Path) -> int:
    """Epochs that a run was planned to have, from its own schedule.json; 0 if unknown."""
    try:
        return int(json.loads((folder / "schedule.json").read_text())["max_epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def read_environment() -> dict[str, Any]:
    """Versions, machine and command of this process."""
    versions = dict.fromkeys(_PACKAGES, "not installed as a package")
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    versions["hsf-finetune"] = __version__  # an editable installation knows its first one only
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "packages": versions,
        "slurm_job": slurm_job(),
    }


def job_of(folder: Path) -> str | None:
    """The job of SLURM that made or resumed a run last; None where it is not known."""
    try:
        begun = json.loads((folder / ENVIRONMENT).read_text())
        job = [begun, *begun.get("resumed", [])][-1]["slurm_job"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return str(job) if job else None


def write_environment(folder: RunFolder) -> None:
    """Writes versions, machine and command down; those of the process that began a run stay first.

    Raises:
        OutputError: the file cannot be written.
    """
    file, now = folder.file(ENVIRONMENT), read_environment()
    if folder.resumed and file.exists():
        try:
            begun = json.loads(file.read_text(encoding="utf-8"))
            now = {**begun, "resumed": [*begun.get("resumed", []), now]}
        except (ValueError, TypeError, AttributeError):
            renamed = file.rename(first_free(file.with_name(f"damaged_{ENVIRONMENT}")))
            console.say(f"warning: {ENVIRONMENT} cannot be read; it is now {renamed.name}")
    write_json(file, now)
