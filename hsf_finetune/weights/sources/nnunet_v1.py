"""Reads models of nnU-Net v1: a `.model` with its `.model.pkl`, in folders or an archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.walk_folder import paths_below
from hsf_finetune.weights.files.archive import archive_names, unpacked
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.inert_pickle import InertUnpickler
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.files.stand_in import StandIn
from hsf_finetune.weights.files.unreadable import NNUNET_V1_FIX, unreadable_error
from hsf_finetune.weights.sources.infer_network import with_inferred_network
from hsf_finetune.weights.sources.nnunet_folder import choose_fold
from hsf_finetune.weights.sources.nnunet_model import NnUNetDescription, with_nnunet_description
from hsf_finetune.weights.sources.nnunet_plans import json_object
from hsf_finetune.weights.sources.nnunet_v1_plans import (
    described_classes,
    described_plans,
    plain_value,
    renamed_tensors,
)

_SUFFIX = ".model.pkl"
_FILES = ("model_final_checkpoint", "model_best", "model_latest")
_LARGEST_PICKLE_BYTES = 64 << 20


def is_nnunet_v1(path: Path | str) -> bool:
    """Whether this is a model of nnU-Net v1: its folder, one of its two files, or an archive."""
    path = Path(path).expanduser()
    if path.is_dir():
        return bool(_pickles(path))
    if path.name.endswith((_SUFFIX, ".model")):
        return _pickle_of(path).is_file()
    return any(name.endswith(_SUFFIX) for name in archive_names(path))


def read_nnunet_v1(
    path: Path | str, fold: int | str | None = None, orientation: str = "RAS"
) -> Checkpoint:
    """Reads the weights of nnU-Net v1 (Isensee et al. 2021, Nature Methods 18:203-211).

    Its pickles are read as data: nothing in them is imported or called.

    Args:
        path: a folder of `fold_N/model_final_checkpoint.model` and its `.model.pkl`, one of
            the two files, or a tar or zip archive of the folder.
        fold: see `nnunet_folder.read_nnunet`.
        orientation: see there, too.

    Returns:
        The weights under the names of nnU-Net v2's PlainConvUNet, which is the same function;
        those of STU-Net, which v1 trained, under its own.
        `classes` is None where no dataset.json is beside the plans: v1 records values alone,
        which are in `origin` under `label_values`.

    Raises:
        WeightsError: files are missing or damaged, or the model is not supported.
    """
    path = Path(path).expanduser()
    with unpacked(path) as root:
        file, others, notes = _choose(root, fold)
        found = _read(file, others, notes, orientation)
        return replace(found, path=path if root != path else file)


# -------------------------------------------------------------------- internals
def _read(file: Path, others: list[str], notes: list[str], orientation: str) -> Checkpoint:
    pickled = _pickle_of(file)
    content = _read_pickle(pickled)
    weights = read_checkpoint(file)
    try:
        trainer = str(content.get("name", "nnUNetTrainerV2"))
        plans = plain_value(content["plans"])
        arguments = plain_value(content.get("init")) or []
        stage = arguments[5] if len(arguments) > 5 else None
        own = with_inferred_network(weights)  # STU-Net has names of its own
        tensors = dict(weights.tensors) if own.models else renamed_tensors(weights, trainer)
        described = described_plans(plans, stage, tensors)
        named = next((one for one in _datasets(file) if one.is_file()), None)
        classes, class_notes = described_classes(plans, json_object(named) if named else None)
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
        dataset=classes,
        files=(pickled, named or pickled),
        fold=file.parent.name.removeprefix("fold_"),
        other_folds=others,
        notes=(
            *class_notes,
            "nnU-Net v1 brings probabilities back to a scan's voxels, and this package does logits, "
            "as v2: at borders a few voxels differ",
            *notes,
        ),
    )
    found = with_nnunet_description(replace(weights, tensors=tensors), description, orientation)
    assert found.preprocessing is not None
    models = dict(found.models or {})
    if own.models:
        models = own.models | {key: models[key] for key in ("orientation", "strides")}
    return replace(
        found,
        classes=found.classes if named else None,
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


def _datasets(file: Path) -> list[Path]:
    """Where a user may have put a dataset.json: beside the weights, or the plans."""
    return [folder / "dataset.json" for folder in (file.parent, file.parent.parent)]


def _pickle_of(path: Path) -> Path:
    return path if path.name.endswith(_SUFFIX) else path.with_name(f"{path.name}.pkl")


def _pickles(folder: Path) -> list[Path]:
    """The pickles beside weights in a folder, its folds, or below the one folder of a model."""
    for pattern in (f"*{_SUFFIX}", f"fold_*/*{_SUFFIX}", f"all/*{_SUFFIX}"):
        if any(folder.glob(pattern)):
            return sorted({*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*/*{_SUFFIX}")})
    return []


def _choose(path: Path, fold: int | str | None) -> tuple[Path, list[str], list[str]]:
    """The weights to read, the folds beside theirs, and what to say of the choice."""
    if path.is_file():
        file = path.with_name(_pickle_of(path).name.removesuffix(".pkl"))
        if not file.is_file():
            raise WeightsError(
                "these are plans of nnU-Net v1, without weights",
                file=path,
                expected=f"{file.name} beside it",
                fix=NNUNET_V1_FIX,
            )
        return file, [], []
    found = _pickles(path) or [p for p in paths_below(path) if p.name.endswith(_SUFFIX)]
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
    chosen, others, notes = choose_fold(folds, fold)
    files = [folds[chosen] / f"{kind}.model" for kind in _FILES] if chosen in folds else []
    files += sorted(p.with_suffix("") for p in found if p.parent == folds.get(chosen))
    for file in files:
        if file.is_file() and _pickle_of(file).is_file():
            if file.stem != _FILES[0]:
                notes.append(f"{file.name} is used")
            return file, others, notes
    raise WeightsError(
        f"this model of nnU-Net v1 has no weights of fold {chosen}",
        file=path,
        found=", ".join(str(p.relative_to(path)) for p in found),
        expected=f"fold_{chosen}/{_FILES[0]}.model beside {_FILES[0]}{_SUFFIX}",
        fix=NNUNET_V1_FIX,
    )
