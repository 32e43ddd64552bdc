"""The folder of a run: a new one for each, never an earlier one's, and found again to resume."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from hsf_finetune.errors import ConfigError, OutputError
from hsf_finetune.files import atomic_write, write_json
from hsf_finetune.settings import Settings

_FREE_TO_CHANGE = (
    "resume",
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

_SHARED = "HSF_FINETUNE_RUN_FOLDER"
"""Environment variable by which processes of one run share its folder."""

_PACKAGES = ("hsf-finetune", "torch", "monai", "lightning", "torchio", "hydra-core", "nibabel")


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps everything.

    Args:
        path: the folder.
        resumed: whether an earlier start of the same run is to be continued.
    """

    path: Path
    resumed: bool = False

    @property
    def checkpoints(self) -> Path:
        """Folder of best.ckpt and last.ckpt."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        path = self.checkpoints / "last.ckpt"
        return path if self.resumed and path.exists() else None

    @property
    def result(self) -> Path:
        """Written when a run has ended; its presence says that it has."""
        return self.path / "result.json"

    def file(self, name: str) -> Path:
        """A file of the run."""
        return self.path / name


def find_run(settings: Settings) -> RunFolder | None:
    """The run that `resume` asks for; None where a new one is to be made.

    Raises:
        ConfigError: what is to be resumed does not exist, has ended, or had other
            settings.
    """
    if settings.resume is None:
        return None
    if settings.resume != "auto":
        return _to_resume(Path(settings.resume).expanduser(), settings)
    unfinished = _latest_unfinished(settings)
    return RunFolder(unfinished, resumed=True) if unfinished else None


def new_run(settings: Settings) -> RunFolder:
    """A new folder, holding the settings and the environment.

    Raises:
        ConfigError: the folder that `run_dir` names is in use.
        OutputError: it cannot be made.
    """
    if follower():
        return RunFolder(Path(os.environ[_SHARED]))
    folder = RunFolder(_new_folder(settings))
    os.environ[_SHARED] = str(folder.path)
    try:
        _write_yaml(folder.file("config.yaml"), settings.plain())
        write_json(folder.file("environment.json"), environment())
    except OutputError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder


def follower() -> bool:
    """Whether another process leads this run: it alone makes folders, writes and talks.

    The leader starts the others, which inherit the folder through the environment.
    """
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and _SHARED in os.environ


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
    root = Path(settings.datasets.output_path).expanduser()
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
    root = Path(settings.datasets.output_path).expanduser()
    candidates = [Path(settings.run_dir).expanduser()] if settings.run_dir else []
    if root.is_dir():
        candidates += sorted(root.iterdir(), reverse=True)
    for path in candidates:
        config = path / "config.yaml"
        unfinished = config.exists() and not (path / "result.json").exists()
        if unfinished and not _differences(_read_yaml(config), settings.plain()):
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
    if (folder / "result.json").exists():
        raise ConfigError(
            "the run has ended; there is nothing to resume",
            file=folder,
            fix=f"start a new run from its weights: finetuning.pretrained={folder}",
        )
    different = _differences(_read_yaml(config), settings.plain())
    if different:
        raise ConfigError(
            "the run was started with other settings",
            file=config,
            found="\n".join(f"{key}: {old} there, {new} now" for key, old, new in different),
            fix="resume with the settings of that run, or start a new one",
        )
    return RunFolder(folder.resolve(), resumed=True)


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, object, object]]:
    old, new = _flat(before), _flat(_stringly(now))
    return [
        (key, old.get(key, "not set"), new.get(key, "not set"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == free or key.startswith(free + ".") for free in _FREE_TO_CHANGE)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _safe(name: str) -> str:
    return re.sub(r"[^\w\-]+", "_", name) or "run"


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(_stringly(content), sort_keys=False))


def _stringly(content: Mapping[str, Any]) -> dict[str, Any]:
    """With every key a string, so that what is written and read back compares equal."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file; nothing where it is not one of ours."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
