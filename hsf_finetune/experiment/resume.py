"""Which folder a run gets: a new one, never an earlier run's, or that of the run to resume."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import Settings, dotted
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.experiment.run_files import check_files
from hsf_finetune.experiment.run_length import epochs_before_and_now, epochs_behind, length_of
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import atomic_write, first_free
from hsf_finetune.system.errors import ConfigError, DataError, OutputError
from hsf_finetune.system.missing_paths import no_such_path
from hsf_finetune.system.processes import (
    is_main_process,
    publish_run,
    share_run,
    wait_for_run,
)
from hsf_finetune.system.run_folder import (
    GIVEN,
    RESULT,
    SPLITS,
    RunFolder,
    has_ended,
    job_of,
    lacks_folds,
    write_environment,
)
from hsf_finetune.system.slurm_job import job_before

_FREE_TO_CHANGE = (
    "resume",
    "reset",
    "check",
    "report",
    "quality",
    "run_dir",
    "name",
    "lightning.accelerator",
    "lightning.devices",
    "lightning.threads",
    "lightning.log_every_n_steps",
    "lightning.requeue",
    "logger",
    "datasets.output_path",
    "datasets.prune_below",
    "datasets.num_workers",
    "datasets.pin_memory",
    "datasets.cache",
    "datasets.cache_dir",
)
"""Settings that a resumed run may change, since they do not change its result."""


def find_run(settings: Settings) -> RunFolder | None:
    """The run that `resume` asks for, or that this job of SLURM began; None to make a new one.

    All processes but the main one get its run in `open_folder`.

    Raises:
        ConfigError: what is to be resumed does not exist, has ended, or had other
            settings.
    """
    if not is_main_process():
        return None
    if settings.resume is None:
        job = job_before() if settings.lightning.requeue else None
        run = _latest_unfinished(settings, job) if job else None
    elif settings.resume == "auto":
        run = _latest_unfinished(settings)
    else:
        run = _run_to_resume(Path(settings.resume).expanduser(), settings)
    if run is not None:
        with lock_run(run):
            check_files(run, settings)
    return run


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
        longer = tuple(note["longer"]) if note["longer"] else None
        return RunFolder(Path(note["path"]), note["resumed"], longer)
    folder = resumed or RunFolder(_new_folder(settings))
    try:
        if resumed is None or resumed.longer or settings.reset:
            _rename_earlier_results(folder, settings)
            content = json.loads(json.dumps(settings.to_dict()))  # every key a string
            with atomic_write(folder.file("config.yaml")) as file:
                file.write_text(yaml.safe_dump(content, sort_keys=False))
        write_environment(folder)
    except OutputError:
        if resumed is None:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder


def keep_cases(cohort: Cohort, resumed: RunFolder | None) -> Cohort:
    """The cases that a run was started with; cases that were added since are left out, and listed.

    Args:
        cohort: the cases that are found now.
        resumed: the run to resume; None leaves the cohort as it is.

    Raises:
        DataError: a case of the run is no longer found.
        ConfigError: its split cannot be read.
    """
    if resumed is None or not resumed.file(SPLITS).exists():
        return cohort
    try:
        split = json.loads(resumed.file(SPLITS).read_text())
        names = {str(name) for side in ("train", "validation", "test") for name in split[side]}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{SPLITS} of the run is damaged, so that it is not known who trains",
            file=resumed.file(SPLITS),
            found=str(error),
            fix="put back a copy of it, or start a new run",
        ) from error
    missing = sorted(names - {case.name for case in cohort.cases})
    if missing:
        raise DataError(
            f"{console.count_of(len(missing), 'case')} of the run cannot be found any more",
            file=resumed.path,
            found=", ".join(missing[:6]) + (" ..." if len(missing) > 6 else ""),
            fix="put the files back, or start a new run without them",
        )
    added = [case.name for case in cohort.cases if case.name not in names]
    if added:
        console.say(
            f"{console.count_of(len(added), 'case')} that the run was started without "
            f"{'is' if len(added) == 1 else 'are'} not used: {', '.join(added[:6])}"
            + (" ..." if len(added) > 6 else "")
        )
    kept = tuple(case for case in cohort.cases if case.name in names)
    used = {ref.file for case in kept for ref in case.volumes}
    unused = [
        replace(entry, status="unused", reason="added after the run was started")
        for entry in cohort.ledger()
        if entry.case and entry.case not in names and str(entry.path) not in used
    ]
    return replace(cohort, cases=kept, others=(*cohort.others, *unused))


@contextmanager
def lock_run(folder: RunFolder) -> Iterator[None]:
    """Keeps a second process from working on a run, and removes what a killed one left half-written.

    Raises:
        ConfigError: another process works on it.
    """
    lock = FileLock(folder.file(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(
            "another process works on this run",
            file=folder.path,
            fix="wait until it ends, or stop it first",
        ) from None
    try:
        for partial in folder.path.rglob(".partial-*"):
            partial.unlink(missing_ok=True)
        yield
    finally:
        # Removed while it is held, or a process that has just locked it would lose it. Windows
        # removes no open file.
        with suppress(OSError):
            folder.file(".lock").unlink(missing_ok=True)
        lock.release()
        if os.name == "nt":
            with suppress(OSError):
                folder.file(".lock").unlink(missing_ok=True)


def publish_run_dir(run: RunFolder, settings: Settings) -> None:
    """Tells the other processes of the run to train, and in which folder."""
    note = {"path": str(run.path), "resumed": run.resumed, "longer": run.longer}
    publish_run(note, _output_path(settings))


def withdraw_run_dir_afterwards(settings: Settings) -> AbstractContextManager[None]:
    """Removes the note of `publish_run_dir` when the run ends; see `share_run`."""
    return share_run(_output_path(settings))


def _output_path(settings: Settings) -> Path:
    return Path(settings.datasets.output_path).expanduser()


def _new_folder(settings: Settings) -> Path:
    if settings.run_dir is not None:
        path = Path(settings.run_dir).expanduser()
        # A run that was killed while it wrote its first file leaves nothing else.
        inside = path.iterdir() if path.is_dir() else (path,)
        if path.exists() and any(not p.name.startswith((".partial-", GIVEN)) for p in inside):
            raise ConfigError(
                "the run's folder is in use",
                file=path,
                fix=f"give another run_dir, or continue that run: resume={path}",
            )
        return _make_folder(path, exist_ok=True)
    name = re.sub(r"[^\w\-]+", "_", settings.name or "_".join(settings.datasets.datasets))
    path = _output_path(settings) / f"{time.strftime('%Y%m%d-%H%M%S')}_{settings.task}_{name}"
    while True:
        try:
            return _make_folder(first_free(path))
        except FileExistsError:  # another process was faster
            continue


def _make_folder(path: Path, exist_ok: bool = False) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
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


def _latest_unfinished(settings: Settings, job: str | None = None) -> RunFolder | None:
    """The newest run of the same settings, and of a job of SLURM, that started but did not end."""
    root = _output_path(settings)
    candidates = [Path(settings.run_dir).expanduser()] if settings.run_dir else []
    if root.is_dir() and not (job and candidates):
        candidates += sorted(root.iterdir(), reverse=True)
    for path in candidates:
        if (path / "config.yaml").exists() and not has_ended(path) and job in (None, job_of(path)):
            try:
                if not setting_differences(path, settings):
                    return RunFolder(path.resolve(), resumed=True)
            except ConfigError:  # of another program, or damaged
                continue
    return None


def _run_to_resume(path: Path, settings: Settings) -> RunFolder:
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if not folder.exists():
        raise no_such_path(ConfigError, folder, "the folder of a run, or a checkpoint in it")
    if not (folder / "config.yaml").exists():
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
            fix=f"resume={folder}, or start a new run from these weights: "
            f"finetuning.pretrained={path}",
        )
    different = setting_differences(folder, settings)
    length = length_of(settings)[0]
    others = [line for key, line in different.items() if key != length]
    if others:
        raise ConfigError(
            "the run was started with other settings",
            file=folder / "config.yaml",
            found="\n".join(others),
            fix=f"resume={folder} alone has the settings of that run; or start a new one",
        )
    longer = epochs_before_and_now(folder, settings) if different else None
    goes_on, prune = longer or "epoch" in settings.reset, settings.datasets.prune_below
    if has_ended(folder) and not (goes_on or lacks_folds(folder, prunes=prune is not None)):
        raise ConfigError(
            "the run has ended; there is nothing to resume",
            file=folder,
            fix=f"give it more epochs: {length}={2 * max(epochs_behind(folder, settings), 1)}; or "
            f"start a new run from its weights: finetuning.pretrained={folder}",
        )
    return RunFolder(folder.resolve(), resumed=True, longer=longer)


def _rename_earlier_results(folder: RunFolder, settings: Settings) -> None:
    names = ["config.yaml", "schedule.json", "schedule.png", RESULT]
    names += ["validation_scores.csv", "test_scores.csv"]
    names += ["metrics.csv"] if "epoch" in settings.reset else []
    done = epochs_behind(folder.path, settings)
    for path in map(folder.file, names):
        if path.exists():
            path.rename(first_free(path.with_stem(f"{path.stem}_until_epoch_{done}")))


def setting_differences(
    folder: Path, settings: Settings, ignored: Sequence[str] = _FREE_TO_CHANGE
) -> dict[str, str]:
    """Settings in which a run differs, by their names; those it did not know have defaults.

    Args:
        folder: of the run.
        settings: to compare with.
        ignored: settings, or groups of them, that may differ.

    Raises:
        ConfigError: the run's settings cannot be read.
    """
    old = dotted(read_settings_of(folder).to_dict())
    new = dotted(settings.to_dict())
    return {
        key: f"{key}: {old.get(key, 'not set')} in that run, {new.get(key, 'not set')} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == free or key.startswith(free + ".") for free in ignored)
    }
