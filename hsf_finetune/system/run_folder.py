"""The folder of a run: a place with known files. Which one a run gets is `experiment.resume`'s."""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

RESULT = "result.json"
"""File of a run that is written last."""
REPORT = "report.html"
"""File of a run or a comparison: what came of it, to read."""
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
"""Checkpoints of a run: of its best epoch, of its newest, and of the one before that."""
SPLITS = "splits.json"
"""File of a run: which case trains, validates or is only scored."""

_PACKAGES = ("hsf-finetune", "torch", "monai", "lightning", "torchio", "hydra-core", "nibabel")


def has_ended(folder: Path) -> bool:
    """Whether the folder has a run that has ended."""
    return (folder / RESULT).exists()


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


def epochs_done(folder: Path) -> int:
    """Epochs that a run has behind it, from its metrics.csv."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return max((int(row["epoch"]) + 1 for row in csv.DictReader(file)), default=0)
    except (OSError, KeyError, ValueError):
        return 0


def planned_epochs(folder: Path) -> int:
    """Epochs that a run was planned to have, from its schedule.json; 0 if unknown."""
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
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
    }
