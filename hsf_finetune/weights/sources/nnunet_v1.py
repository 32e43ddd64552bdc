"""Reads models of nnU-Net v1: a `.model` with its `.model.pkl`, in folders or an archive."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.archive import LIMIT_BYTES, LIMIT_FILES, extract_safely
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.inert_pickle import InertUnpickler
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.files.stand_in import StandIn
from hsf_finetune.weights.files.unreadable import NNUNET_V1_FIX, unreadable_error
from hsf_finetune.weights.sources.infer_network import with_inferred_network
from hsf_finetune.weights.sources.nnunet_model import NnUNetDescription, with_nnunet_description
from hsf_finetune.weights.sources.nnunet_plans import json_object
from hsf_finetune.weights.sources.nnunet_v1_plans import (
    described_classes,
    described_plans,
    plain_value,
    renamed_tensors,
)

_SUFFIX = ".model.pkl"
_TAR = (".tar", ".tar.gz", ".tgz")
_FILES = ("model_final_checkpoint", "model_best", "model_latest")
_LARGEST_PICKLE_BYTES = 64 << 20


def is_nnunet_v1(path: Path | str) -> bool:
    """Whether this is a model of nnU-Net v1: its folder, one of its two files, or an archive."""
    path = Path(path).expanduser()
    if path.is_dir():
        return bool(_pickles(path))
    if path.name.endswith((_SUFFIX, ".model")):
        return _pickle_of(path).is_file()
    return _is_archive(path)


def read_nnunet_v1(
    path: Path | str,
    fold: int | str | None = None,
    orientation: str = "RAS",
) -> Checkpoint:
    """Reads the weights of nnU-Net v1 (Isensee et al. 2021, Nature Methods 18:203-211).

    Its pickles are read as data: nothing in them is imported or called.

    Args:
        path: a folder of `fold_N/model_final_checkpoint.model` and its `.model.pkl`, one of
            the two files, or a tar or zip archive of the folder.
        fold: which fold; None takes `all` where there is one, else the first.
        orientation: where the voxel axes of the training images point, see
            `nnunet_folder.read_nnunet`.

    Returns:
        The weights under the names of nnU-Net v2's PlainConvUNet, which is the same function;
        those of STU-Net, which v1 trained, under its own.
        `classes` is None where no dataset.json is beside the plans: v1 records values alone,
        which are in `origin` under `label_values`.

    Raises:
        WeightsError: files are missing or damaged, or the model is not supported.
    """
    path = Path(path).expanduser()
    with _unpacked(path) as root:
        try:
            chosen = _choose(root, fold)
            return replace(_read(chosen, orientation), path=path if root != path else chosen.file)
        except WeightsError as error:
            if root == path:
                raise
            # The temporary folder no longer exists when a user reads this.
            raise WeightsError(str(error).replace(str(root), str(path))) from error


# -------------------------------------------------------------------- internals
@dataclass(frozen=True)
class _Files:
    file: Path
    notes: tuple[str, ...] = ()
    other_folds: tuple[str, ...] = ()

    @property
    def fold(self) -> str:
        return self.file.parent.name.removeprefix("fold_")


def _read(chosen: _Files, orientation: str) -> Checkpoint:
    pickled = _pickle_of(chosen.file)
    content = _read_pickle(pickled)
    weights = read_checkpoint(chosen.file)
    try:
        trainer = str(content.get("name", "nnUNetTrainerV2"))
        plans = plain_value(content["plans"])
        arguments = plain_value(content.get("init")) or []
        stage = arguments[5] if len(arguments) > 5 else None
        own = with_inferred_network(weights)  # STU-Net has names of its own
        tensors = dict(weights.tensors) if own.models else renamed_tensors(weights, trainer)
        described = described_plans(plans, stage, tensors)
        classes = described_classes(plans, _dataset_of(chosen.file))
    except (KeyError, TypeError, IndexError, ValueError, RecursionError, AttributeError) as error:
        raise WeightsError(
            "the plans of nnU-Net v1 cannot be read",
            file=pickled,
            found=f"{type(error).__name__}: {error}",
            expected="init, name, class and plans, as nnU-Net v1 writes them beside its weights",
        ) from error
    [configuration] = described["configurations"]
    description = NnUNetDescription(
        name="__".join((trainer, configuration)),
        configuration=configuration,
        plans=described,
        dataset=classes.dataset,
        files=(pickled, classes.file or pickled),
        fold=chosen.fold,
        other_folds=chosen.other_folds,
        notes=(
            *classes.notes,
            "nnU-Net v1 brings probabilities back to a scan's voxels, and this package does logits, "
            "as v2: at borders a few voxels differ",
            *chosen.notes,
        ),
    )
    found = with_nnunet_description(replace(weights, tensors=tensors), description, orientation)
    assert found.preprocessing is not None
    models = dict(found.models or {})
    if own.models:
        models = own.models | {key: models[key] for key in ("orientation", "strides")}
    return replace(
        found,
        classes=found.classes if classes.file else None,
        models=models,
        # v1 resamples first.
        preprocessing=found.preprocessing.model_copy(update={"intensity_first": False}),
        origin=found.origin | {"format": "nnU-Net v1"},
    )


def _read_pickle(path: Path) -> Mapping[str, Any]:
    """What a pickle holds, as data."""
    try:
        if path.stat().st_size > _LARGEST_PICKLE_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        with path.open("rb") as file:
            content = InertUnpickler(file).load()
    except Exception as error:
        # Damaged pickles fail in a dozen ways.
        raise unreadable_error(path, error, "a damaged or unusual pickle") from error
    if isinstance(content, StandIn) or not isinstance(content, Mapping) or "plans" not in content:
        raise WeightsError(
            "this is not what nnU-Net v1 writes beside its weights",
            file=path,
            found=repr(content)[:200],
            expected="a pickle with init, name, class and plans",
        )
    return content


def _dataset_of(file: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The dataset.json that a user has put beside the weights or the plans, if any."""
    for folder in (file.parent, file.parent.parent):
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json", json_object(folder / "dataset.json")
    return None


def _pickle_of(path: Path) -> Path:
    return path if path.name.endswith(_SUFFIX) else path.with_name(f"{path.name}.pkl")


def _pickles(folder: Path) -> list[Path]:
    """The pickles beside weights in a folder, its folds, or below the one folder of a model."""
    for pattern in (f"*{_SUFFIX}", f"fold_*/*{_SUFFIX}", f"all/*{_SUFFIX}"):
        if any(folder.glob(pattern)):
            return sorted({*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*/*{_SUFFIX}")})
    return []


def _choose(path: Path, fold: int | str | None) -> _Files:
    """The weights to read, and what to say of the choice."""
    if path.is_file():
        file = path.with_name(_pickle_of(path).name.removesuffix(".pkl"))
        if not file.is_file():
            raise WeightsError(
                "these are plans of nnU-Net v1, without weights",
                file=path,
                expected=f"{file.name} beside it",
                fix=NNUNET_V1_FIX,
            )
        return _Files(file)
    found = _pickles(path) or sorted(path.rglob(f"*{_SUFFIX}"))
    models = {p.parent.parent for p in found}
    if len(models) > 1:
        listed = ", ".join(str(p.relative_to(path)) for p in sorted(models)[:6])
        raise WeightsError(
            "there are several models of nnU-Net v1",
            file=path,
            found=listed,
            fix="unpack the archive, and give the folder of one of them",
        )
    folds = {p.parent.name.removeprefix("fold_"): p.parent for p in found}
    names = sorted(folds, key=lambda name: (name != "all", len(name), name))
    chosen = names[0] if fold is None else str(fold).removeprefix("fold_")
    files = [folds[chosen] / f"{kind}.model" for kind in _FILES] if chosen in folds else []
    files += sorted(p.with_suffix("") for p in found if p.parent == folds.get(chosen))
    for file in files:
        if file.is_file() and _pickle_of(file).is_file():
            notes = []
            if others := [name for name in names if name != chosen]:
                notes.append(f"fold {chosen} is used; other folds: {', '.join(others)}")
            if file.stem != _FILES[0]:
                notes.append(f"{file.name} is used")
            return _Files(file, tuple(notes), tuple(others))
    raise WeightsError(
        f"this model of nnU-Net v1 has no weights of fold {chosen}",
        file=path,
        found=", ".join(str(p.relative_to(path)) for p in found),
        expected=f"fold_{chosen}/{_FILES[0]}.model beside {_FILES[0]}{_SUFFIX}",
        fix=NNUNET_V1_FIX,
    )


def _is_archive(path: Path) -> bool:
    """Whether this is a tar or zip archive of such a model."""
    names: list[str] = []
    try:
        if path.is_file() and path.name.endswith(_TAR):
            with tarfile.open(path) as tar:
                names = tar.getnames()
        elif path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
    except (OSError, EOFError, ValueError, NotImplementedError, tarfile.TarError, zipfile.error):
        return False
    return any(name.endswith(_SUFFIX) for name in names)


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The folder or file, or for an archive what is in it, while the block runs."""
    if not _is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="nnunet-") as folder:
        root = Path(folder) / "model"
        if path.name.endswith(_TAR):
            root.mkdir()
            _extract_tar(path, root)
        else:
            extract_safely(path, root)
        yield root


def _extract_tar(path: Path, folder: Path) -> None:
    """Unpacks the files of models in a tar archive, without links, devices, or paths outside."""
    with tarfile.open(path) as tar:
        wanted = [
            member
            for member in tar.getmembers()
            if member.isfile() and member.name.endswith((".model", _SUFFIX, "dataset.json"))
        ]
        size = sum(member.size for member in wanted)
        if len(wanted) > LIMIT_FILES or size > LIMIT_BYTES:
            raise WeightsError(
                "the archive is too large",
                file=path,
                found=f"{len(wanted):,} files of {size:,} bytes",
                fix="unpack it, and give the folder of one model",
            )
        try:
            tar.extractall(folder, wanted, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise WeightsError(
                "the archive cannot be unpacked", file=path, found=error, fix="unpack it yourself"
            ) from error
