"""The folder of a run: a new one for each, never an earlier one's, and found again to resume."""

from __future__ import annotations

import csv
import json
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hsf_finetune.config.settings import Settings, dotted
from hsf_finetune.system.errors import ConfigError, OutputError
from hsf_finetune.system.files import atomic_write, write_json
from hsf_finetune.system.processes import follow, forget, is_main_process, lead

RESULT = "result.json"
"""File of a run that is written last."""
_FREE_TO_CHANGE = (
    "resume",
    "reset",
    "check",
    "run_dir",
    "name",
    "lightning.accelerator",
    "lightning.devices",
    "lightning.threads",
    "lightning.log_every_n_steps",
    "logger",
    "datasets.output_path",
    "datasets.num_workers",
    "datasets.pin_memory",
    "datasets.cache",
    "datasets.cache_dir",
)
"""Settings that a resumed run may change, since they do not change its result."""

_LENGTH = "lightning.max_epochs"
"""The one setting by which a run may become longer than it was."""

_PACKAGES = ("hsf-finetune", "torch", "monai", "lightning", "torchio", "hydra-core", "nibabel")


def has_ended(folder: Path) -> bool:
    """Whether there is a run in the folder that has come to its end."""
    return (folder / RESULT).exists()


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps everything.

    Args:
        path: the folder.
        resumed: whether an earlier start of the same run is to be continued.
        longer: epochs that it had and has now, where it is to go on for longer.
    """

    path: Path
    resumed: bool = False
    longer: tuple[int, int] | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of best.ckpt and last.ckpt."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        path = self.checkpoints / "last.ckpt"
        return path if self.resumed and path.exists() else None

    def file(self, name: str) -> Path:
        """A file of the run."""
        return self.path / name


def find_run(settings: Settings) -> RunFolder | None:
    """The run that `resume` asks for; None where a new one is to be made.

    A process that does not lead finds the leader's run in `open_run`.

    Raises:
        ConfigError: what is to be resumed does not exist, has ended, or had other
            settings; or something is to be reset of a run that is not resumed.
    """
    if settings.resume is None and settings.reset:
        raise ConfigError(
            f"reset=[{','.join(settings.reset)}] is about a run that is resumed",
            fix="resume=RUN, or leave reset out",
        )
    if settings.resume is None or not is_main_process():
        return None
    if settings.resume != "auto":
        return _to_resume(Path(settings.resume).expanduser(), settings)
    unfinished = _latest_unfinished(settings)
    return RunFolder(unfinished, resumed=True) if unfinished else None


def open_run(settings: Settings, earlier: RunFolder | None) -> RunFolder:
    """The run's folder, ready to be written to.

    A new one holds the settings and the environment. In one that goes on for longer, or
    from epoch 0 again, what it came to so far is kept under other names.

    Args:
        settings: of the run.
        earlier: the run to resume, from `find_run`.

    Raises:
        ConfigError: the folder that `run_dir` names is in use.
        OutputError: it cannot be made.
    """
    if not is_main_process():
        note = follow(_output_path(settings))
        longer = note["longer"]
        return RunFolder(
            Path(note["path"]), note["resumed"], (longer[0], longer[1]) if longer else None
        )
    folder = earlier or RunFolder(_new_folder(settings))
    try:
        if earlier is None or earlier.longer or settings.reset:
            _set_aside(folder, settings)
            _write_yaml(folder.file("config.yaml"), settings.to_dict())
        write_json(folder.file("environment.json"), environment())
    except OutputError:
        if earlier is None:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder


def call_in(run: RunFolder, settings: Settings) -> None:
    """Has the run's other processes begin to train in its folder."""
    note = {"path": str(run.path), "resumed": run.resumed, "longer": run.longer}
    lead(note, _output_path(settings))


@contextmanager
def calling_back(settings: Settings) -> Iterator[None]:
    """Takes `call_in` back at the end, whatever it is, as for a run before that was killed."""
    forget(_output_path(settings))
    try:
        yield
    finally:
        forget(_output_path(settings))


def environment() -> dict[str, Any]:
    """Versions, machine and command of this process."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
    }


def _output_path(settings: Settings) -> Path:
    return Path(settings.datasets.output_path).expanduser()


def _new_folder(settings: Settings) -> Path:
    if settings.run_dir is not None:
        path = Path(settings.run_dir).expanduser()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(
                "the run's folder is in use",
                file=path,
                fix=f"give another run_dir, or continue that run: resume={path}",
            )
        return _made(path)
    root = _output_path(settings)
    name = settings.name or "_".join(settings.datasets.datasets)
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}_{settings.task}_{_safe(name)}"
    for number in range(1, 1000):
        path = root / (stem if number == 1 else f"{stem}_{number}")
        if not path.exists():
            try:
                return _made(path)
            except FileExistsError:
                continue
    raise OutputError("no free name for the run's folder", file=root / stem)


def _made(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=path.is_dir())
    except FileExistsError:
        raise
    except OSError as error:
        raise OutputError(
            "the run's folder cannot be made",
            file=path,
            found=error.strerror,
            fix="set datasets.output_path to a folder you can write to",
        ) from error
    return path.resolve()


def _latest_unfinished(settings: Settings) -> Path | None:
    """The newest run of the same settings that started but did not end."""
    root = _output_path(settings)
    candidates = [Path(settings.run_dir).expanduser()] if settings.run_dir else []
    if root.is_dir():
        candidates += sorted(root.iterdir(), reverse=True)
    for path in candidates:
        config = path / "config.yaml"
        unfinished = config.exists() and not has_ended(path)
        if unfinished and not _differences(_read_yaml(config), settings.to_dict()):
            return path.resolve()
    return None


def _to_resume(path: Path, settings: Settings) -> RunFolder:
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    config = folder / "config.yaml"
    if not config.exists():
        raise ConfigError(
            "there is no run to resume",
            file=path,
            expected="the folder of a run (with config.yaml), or a checkpoint in it",
            fix="resume=auto finds the latest unfinished run of these settings",
        )
    if path.suffix == ".ckpt" and path.name != "last.ckpt":
        raise ConfigError(
            "only last.ckpt holds the state of an interrupted run",
            file=path,
            fix=f"resume={folder}, or start anew from these weights: finetuning.pretrained={path}",
        )
    different = _differences(_read_yaml(config), settings.to_dict())
    meaning = [entry for entry in different if entry[0] != _LENGTH]
    if meaning:
        raise ConfigError(
            "the run was started with other settings",
            file=config,
            found="\n".join(f"{key}: {old} there, {new} now" for key, old, new in meaning),
            fix="resume with the settings of that run, or start a new one",
        )
    longer = _longer(folder, settings) if different else None
    if has_ended(folder) and not longer and "epoch" not in settings.reset:
        raise ConfigError(
            "the run has ended; there is nothing to resume",
            file=folder,
            fix=f"let it go on for longer: {_LENGTH}={2 * max(epochs_done(folder), 1)}; or start "
            f"a new run from its weights: finetuning.pretrained={folder}",
        )
    return RunFolder(folder.resolve(), resumed=True, longer=longer)


def _longer(folder: Path, settings: Settings) -> tuple[int, int]:
    """Epochs of a run as it was planned, and now.

    Raises:
        ConfigError: it has gone on for longer than it is to go now.
    """
    before = _read_json(folder / "schedule.json").get("max_epochs")
    now, done = settings.lightning.max_epochs, epochs_done(folder)
    if now is None or (now <= done and "epoch" not in settings.reset):
        raise ConfigError(
            f"{_LENGTH}={'null' if now is None else now} is no more than the {done} epochs that "
            "the run has behind it",
            file=folder,
            expected=f"more than {done}, or as it was: {before}",
        )
    return int(before or 0), now


def epochs_done(folder: Path) -> int:
    """Epochs that a run has behind it, from its metrics.csv."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return max((int(row["epoch"]) + 1 for row in csv.DictReader(file)), default=0)
    except (OSError, KeyError, ValueError):
        return 0


def _set_aside(folder: RunFolder, settings: Settings) -> None:
    """Renames what a run came to, before it goes on to something else."""
    names = ["config.yaml", "schedule.json", "schedule.png", RESULT]
    names += ["validation_scores.csv", "test_scores.csv"]
    if "epoch" in settings.reset:
        names.append("metrics.csv")
    done = epochs_done(folder.path)
    for path in [folder.file(name) for name in names]:
        if path.exists():
            path.rename(_free(path.with_stem(f"{path.stem}_until_epoch_{done}")))


def _free(path: Path) -> Path:
    """The path, or the first of `..._2`, `..._3` that does not exist."""
    tries = [path, *(path.with_stem(f"{path.stem}_{n}") for n in range(2, 1000))]
    return next(p for p in tries if not p.exists())


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, object, object]]:
    old, new = dotted(_stringly(_completed(before))), dotted(_stringly(now))
    return [
        (key, old.get(key, "not set"), new.get(key, "not set"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == free or key.startswith(free + ".") for free in _FREE_TO_CHANGE)
    ]


def _completed(before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a run, where those that it did not know yet have their defaults."""
    try:
        return Settings.model_validate(before).to_dict()
    except ValidationError:
        return before


def _safe(name: str) -> str:
    return re.sub(r"[^\w\-]+", "_", name) or "run"


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(_stringly(content), sort_keys=False))


def _stringly(content: Mapping[str, Any]) -> dict[str, Any]:
    """With every key a string, so that what is written and read back compares equal."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file; nothing where it is not one of ours."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
