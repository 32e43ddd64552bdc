"""The report of an earlier check, which stays valid while nothing it follows from has changed.

Composing the configuration alone takes about a second; comparing the times of some hundred
files takes milliseconds. A file counts as unchanged while its size and its times of change, of
content and of permissions, are the same. As in Git's index, a file that changed while the check
ran is not trusted: the check may have read it before or after.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from hsf_finetune.check.check_report import CheckReport, restore_report
from hsf_finetune.system.atomic_files import cache_folder, write_json
from hsf_finetune.system.errors import OutputError
from hsf_finetune.system.walk_folder import walk_folder

if TYPE_CHECKING:
    from hsf_finetune.config.settings import Settings
    from hsf_finetune.data.discovery.cases import Cohort

_PACKAGE = Path(__file__).parents[1]
_MAX_PATHS = 50_000
"""Comparing more files and folders takes longer than it saves."""
_FROM_OUTSIDE = ("oc.env", "searchpath", "hydra.")
"""Words of settings whose values come from outside of the YAML files."""


@dataclass(frozen=True, eq=False)
class WrittenReport:
    """A report in its folder; whether warnings count; and advice that is printed after it."""

    report: CheckReport
    folder: Path
    strict: bool
    advice: tuple[str, ...]


def command_key(arguments: Sequence[str], config_dir: Path | None, output: Path | None) -> str:
    """Identifies a command by its arguments, the folder it is typed in, and the program."""
    words = [[*arguments], str(config_dir), str(output), os.getcwd(), str(_PACKAGE), sys.version]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def find_earlier(key: str) -> WrittenReport | None:
    """The report of an earlier check with the same key; None where anything has changed."""
    try:
        kept = json.loads(_file(key).read_text("utf-8", "surrogateescape"))
        if any(_stamp(path) != stamp for path, *stamp in kept["stamps"]):
            return None
        report = restore_report(kept["report"])
        return WrittenReport(report, Path(kept["folder"]), kept["strict"], tuple(kept["advice"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # there is none, or a damaged one: the data are checked again


def keep_report(key: str, written: WrittenReport, paths: Iterable[Path], started_ns: int) -> None:
    """Keeps a report for the next command with this key.

    It is not kept if a path changed since the start, or if there are too many of them.
    """
    plain = {
        "folder": written.folder,
        "strict": written.strict,
        "advice": written.advice,
        "report": {**written.report.to_dict(), "cases": written.report.case_count},
        "stamps": chain(_stamps(paths, started_ns), _stamps_of_report(written.folder)),
    }
    # Otherwise the next command checks the data again.
    with suppress(OutputError, _NotKeptError):
        write_json(_file(key), plain)


def source_paths(
    settings: Settings,
    cohort: Cohort,
    report: Path,
    arguments: Sequence[str],
    config_dir: Path | None,
) -> Iterator[Path] | None:
    """The files and folders that a report follows from: program, YAML files, data and weights.

    The arguments are overrides and dataset YAMLs; `report` is the folder of the report.

    Returns:
        None where the report follows from something else: environment variables, weights that
        are downloaded.
    """
    from hsf_finetune.config.conf_files import conf_folder

    pretrained = settings.weights.pretrained
    weights = Path(pretrained).expanduser() if pretrained and pretrained != "none" else None
    fetched = pretrained == "demo" or settings.weights.named is not None
    if weights is not None and (fetched or not weights.exists()):
        return None
    own_yamls = _own_yamls(arguments, config_dir)
    texts = [path.read_text("utf-8", "replace") for path in own_yamls if path.is_file()]
    if any(word in text for text in (*arguments, *texts) for word in _FROM_OUTSIDE):
        return None
    return chain(
        _PACKAGE.rglob("*.py"),
        _walk(conf_folder(), ".yaml"),
        own_yamls,
        _data_paths(settings, cohort, report),
        [weights, *_walk(weights, "")] if weights is not None else [],
    )


def is_yaml_file(argument: str) -> bool:
    """Whether an argument of the command is a dataset YAML, and no override."""
    return "=" not in argument or (argument.endswith(".yaml") and Path(argument).is_file())


def _own_yamls(arguments: Sequence[str], config_dir: Path | None) -> list[Path]:
    """The user's YAML files, and the folders that further ones may appear in."""
    given = [Path(text).expanduser().absolute() for text in arguments if is_yaml_file(text)]
    folders = [file.parent.parent for file in given if file.parent.name == "datasets"]
    folders += [config_dir.expanduser()] if config_dir is not None else []
    return [*given, *(path for folder in folders for path in _walk(folder, ".yaml"))]


def _data_paths(settings: Settings, cohort: Cohort, report: Path) -> Iterator[Path]:
    """The files of the cases, and the folders that further ones may appear in."""
    data = settings.datasets
    volumes = {ref.path for case in cohort.cases for ref in case.volumes}
    yield from volumes
    if data.split_file is not None:
        yield Path(data.split_file)
    # What runs and checks write may lie among the data, and does not change them.
    written = {Path(data.output_path).resolve(), report.resolve()}
    written = {w for w in written if not any(path.is_relative_to(w) for path in volumes)}
    for dataset in data.datasets.values():
        root = (Path(data.main_path).expanduser() / dataset.path).resolve()
        if dataset.table is not None:
            yield root / dataset.table
        yield from _walk(root, skip=written)


def _walk(top: Path, suffix: str | None = None, skip: Collection[Path] = ()) -> Iterator[Path]:
    """Every folder from the top one on, and the files in them that end in the suffix."""
    for folder, paths in walk_folder(top, skip):
        yield folder
        if suffix is not None:
            yield from (path for path in paths if path.name.endswith(suffix))


def _file(key: str) -> Path:
    return cache_folder() / "check" / "reports" / f"{key}.json"


class _NotKeptError(Exception):
    """A path changed while the data were checked, or there are too many paths."""


def _stamps(paths: Iterable[Path], started_ns: int) -> Iterator[list[str | int]]:
    """Each path with its stamp, one at a time.

    Raises:
        _NotKeptError: they should not be kept.
    """
    for count, path in enumerate(paths, start=1):
        stamp = _stamp(path)
        if count > _MAX_PATHS or (stamp and max(stamp[1:]) >= started_ns):
            raise _NotKeptError
        yield [str(path), *stamp]


def _stamps_of_report(folder: Path) -> Iterator[list[str | int]]:
    return ([str(path), *_stamp(path)] for path in folder.rglob("*") if path.is_file())


def _stamp(path: str | Path) -> list[int]:
    """Size in bytes and times of change in nanoseconds; empty where there is no such file."""
    try:
        stat = os.stat(path)
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    except OSError:
        return []
