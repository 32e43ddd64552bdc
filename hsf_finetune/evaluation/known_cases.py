"""Which cases a run's model, or one that it started from, has trained on: told by their files."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.system.atomic_files import read_csv
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import DataError, WeightsError
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.run_folder import LEDGER, SPLITS, read_split
from hsf_finetune.weights.sources.read_source import find_checkpoint


def run_of(model: str | Path) -> Path | None:
    """The folder of the run that a model is of; None where it is not known."""
    try:
        run = find_checkpoint(model).absolute().parent.parent
    except WeightsError:
        return None  # weights by others, or those of a name or an address
    return run if all((run / name).exists() for name in ("config.yaml", SPLITS)) else None


def trained_on(run: Path, cases: Sequence[Case]) -> set[str]:
    """Names of those of some cases that a run trained on.

    These have an image file of the run, or the name of one of its cases, unless the file of that
    case is still there with another content: two datasets may use one name for different scans.

    Raises:
        DataError: files of the run are missing, damaged or incomplete.
    """
    names = {*read_split(run)["train"]}
    files = _training_images(run, names)
    users: dict[Path, set[str]] = {}
    for name, paths in files.items():
        for path in paths:
            users.setdefault(path.resolve(), set()).add(name)
    return {
        case.name
        for case in cases
        if _is_in_files(case, users)
        or (case.name in names and not _is_another(case, files.get(case.name, ())))
    }


def source_trained_on(source: str | Path, cases: Sequence[Case]) -> tuple[str, ...]:
    """Names of those of some cases that pretrained weights trained on, or that their own source did.

    Args:
        source: the weights; only those of runs say what they trained on.
        cases: of a run that starts from them.

    Raises:
        DataError: files of the source's run are damaged or incomplete.
    """
    found = {name for run in _ancestors(source) for name in trained_on(run, cases)}
    return tuple(case.name for case in cases if case.name in found)


# -------------------------------------------------------------------- internals
def _ancestors(source: str | Path) -> Iterator[Path]:
    """The run of some weights, that of the weights it started from, and so on."""
    seen: set[Path] = set()
    run = run_of(source)
    while run is not None and run not in seen:
        yield run
        seen.add(run)
        file = run / "transfer.json"
        run = run_of(read_json(file, {"source": str})["source"]) if file.exists() else None


def _training_images(run: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """Case -> its image files, of the training cases of a run; none where it has no ledger."""
    file = run / LEDGER
    if not file.exists():
        return {}
    try:
        header, *lines = read_csv(file)
        columns = [header.index(name) for name in ("file", "fate", "case")]
        rows = [[line[column] for column in columns] for line in lines]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise DataError(
            "the ledger of the run cannot be read",
            file=file,
            found=error,
            expected="the file as the run wrote it",
            fix="copy it back from a backup of the run; or delete it: cases are then told by name",
        ) from error
    found: dict[str, list[Path]] = {}
    for path, fate, case in rows:
        if fate == "image" and case in names:
            found.setdefault(case, []).append(Path(path))
    return found


def _is_in_files(case: Case, users: dict[Path, set[str]]) -> bool:
    """Whether an image of a case is one of some files, of which one may hold several cases."""
    known = [(ref.key, users.get(ref.path.resolve())) for ref in case.images]
    return any(names and (key is None or case.name in names) for key, names in known)


def _is_another(case: Case, files: Collection[Path]) -> bool:
    """Whether files of the case of that name are there, and none is an image of this one."""
    there = [path for path in files if path.exists()]
    return bool(there) and not any(
        _is_same(ref.path, path) for ref in case.images for path in there
    )


def _is_same(one: Path, other: Path) -> bool:
    if one.resolve() == other.resolve():
        return True
    if not (one.is_file() and other.is_file()) or one.stat().st_size != other.stat().st_size:
        return False
    return Checksum.of_file(one, "xxh3_128") == Checksum.of_file(other, "xxh3_128")
