"""Which folder a run gets: a new one, never an earlier run's, or that of the run to resume."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hsf_finetune.config.settings import Settings, dotted
from hsf_finetune.system.atomic_files import atomic_write, write_json
from hsf_finetune.system.errors import ConfigError, OutputError
from hsf_finetune.system.processes import (
    is_main_process,
    publish_run,
    remove_published_run,
    wait_for_run,
)
from hsf_finetune.system.run_folder import (
    RESULT,
    RunFolder,
    epochs_done,
    has_ended,
    read_environment,
)

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


def find_run(settings: Settings) -> RunFolder | None:
    """The run that `resume` asks for; None where a new one is to be made.

    All processes but the main one get its run in `open_folder`.

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
        return _run_to_resume(Path(settings.resume).expanduser(), settings)
    unfinished = _latest_unfinished(settings)
    return RunFolder(unfinished, resumed=True) if unfinished else None


def open_folder(settings: Settings, resumed: RunFolder | None) -> RunFolder:
    """The run's folder, ready to be written to.

    A new one holds the settings and the environment. In one that is resumed for more epochs,
    or from epoch 0 again, earlier results are kept under other names.

    Args:
        settings: of the run.
        resumed: the run to resume, from `find_run`.

    Raises:
        ConfigError: the folder that `run_dir` names is in use.
        OutputError: it cannot be made.
    """
    if not is_main_process():
        note = wait_for_run(_output_path(settings))
        longer = note["longer"]
        return RunFolder(
            Path(note["path"]), note["resumed"], (longer[0], longer[1]) if longer else None
        )
    folder = resumed or RunFolder(_new_folder(settings))
    try:
        if resumed is None or resumed.longer or settings.reset:
            _rename_earlier_results(folder, settings)
            _write_yaml(folder.file("config.yaml"), settings.to_dict())
        write_json(folder.file("environment.json"), read_environment())
    except OutputError:
        if resumed is None:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder


def publish_run_dir(run: RunFolder, settings: Settings) -> None:
    """Tells the other processes of the run to train, and in which folder."""
    note = {"path": str(run.path), "resumed": run.resumed, "longer": run.longer}
    publish_run(note, _output_path(settings))


@contextmanager
def withdraw_run_dir_afterwards(settings: Settings) -> Iterator[None]:
    """Removes the note of `publish_run_dir` when the run ends, and one that a killed run left."""
    remove_published_run(_output_path(settings))
    try:
        yield
    finally:
        remove_published_run(_output_path(settings))


# -------------------------------------------------------------------- internals
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
        return _make_folder(path)
    root = _output_path(settings)
    name = settings.name or "_".join(settings.datasets.datasets)
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}_{settings.task}_{_file_name(name)}"
    for number in range(1, 1000):
        path = root / (stem if number == 1 else f"{stem}_{number}")
        if not path.exists():
            try:
                return _make_folder(path)
            except FileExistsError:
                continue
    raise OutputError("no free name for the run's folder", file=root / stem)


def _make_folder(path: Path) -> Path:
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


def _run_to_resume(path: Path, settings: Settings) -> RunFolder:
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
            fix=f"resume={folder}, or start a new run from these weights: finetuning.pretrained={path}",
        )
    different = _differences(_read_yaml(config), settings.to_dict())
    meaning = [entry for entry in different if entry[0] != _LENGTH]
    if meaning:
        raise ConfigError(
            "the run was started with other settings",
            file=config,
            found="\n".join(f"{key}: {old} in that run, {new} now" for key, old, new in meaning),
            fix="resume with the settings of that run, or start a new one",
        )
    longer = _epochs_before_and_now(folder, settings) if different else None
    if has_ended(folder) and not longer and "epoch" not in settings.reset:
        raise ConfigError(
            "the run has ended; there is nothing to resume",
            file=folder,
            fix=f"give it more epochs: {_LENGTH}={2 * max(epochs_done(folder), 1)}; or start "
            f"a new run from its weights: finetuning.pretrained={folder}",
        )
    return RunFolder(folder.resolve(), resumed=True, longer=longer)


def _epochs_before_and_now(folder: Path, settings: Settings) -> tuple[int, int]:
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


def _rename_earlier_results(folder: RunFolder, settings: Settings) -> None:
    """Renames the results of a run before it gets others."""
    names = ["config.yaml", "schedule.json", "schedule.png", RESULT]
    names += ["validation_scores.csv", "test_scores.csv"]
    if "epoch" in settings.reset:
        names.append("metrics.csv")
    done = epochs_done(folder.path)
    for path in [folder.file(name) for name in names]:
        if path.exists():
            path.rename(_free_path(path.with_stem(f"{path.stem}_until_epoch_{done}")))


def _free_path(path: Path) -> Path:
    """The path, or the first of `..._2`, `..._3` that does not exist."""
    tries = [path, *(path.with_stem(f"{path.stem}_{n}") for n in range(2, 1000))]
    return next(p for p in tries if not p.exists())


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, object, object]]:
    old, new = dotted(_with_text_keys(_with_defaults(before))), dotted(_with_text_keys(now))
    return [
        (key, old.get(key, "not set"), new.get(key, "not set"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == free or key.startswith(free + ".") for free in _FREE_TO_CHANGE)
    ]


def _with_defaults(before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a run, where those that it did not know yet have their defaults."""
    try:
        return Settings.model_validate(before).to_dict()
    except ValidationError:
        return before


def _file_name(name: str) -> str:
    return re.sub(r"[^\w\-]+", "_", name) or "run"


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(_with_text_keys(content), sort_keys=False))


def _with_text_keys(content: Mapping[str, Any]) -> dict[str, Any]:
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
