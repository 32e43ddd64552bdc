"""Reads weights of nnU-Net v2 from its results folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.nnunet_plans import NnUNetPlans, json_object, read_plans

_PLAIN_NUMBERS = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype")
"""nnU-Net logs losses and Dice as numpy scalars, which hold a number and call nothing."""
_FILES = {
    "last": ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"),
    "best": ("checkpoint_best.pth", "checkpoint_final.pth", "checkpoint_latest.pth"),
}
"""Files in the order of preference; nnU-Net publishes the final one only."""
_CITATION = (
    "Isensee et al. (2021). nnU-Net: a self-configuring method for deep learning-based biomedical "
    "image segmentation. Nature Methods 18:203-211. https://doi.org/10.1038/s41592-020-01008-z"
)


@dataclass(frozen=True)
class NnUNetFold:
    """The files of one fold of an nnU-Net.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`, with plans.json and dataset.json.
        fold: which one: `0`, ..., or `all`.
        file: its checkpoint.
        other_folds: the folds beside it.
        missing: the requested checkpoint (`best`, `last`) that `file` replaces; empty if it exists.
    """

    folder: Path
    fold: str
    file: Path
    other_folds: tuple[str, ...]
    missing: str = ""


def is_nnunet(path: Path | str) -> bool:
    """Whether this is a results folder of nnU-Net v2, a fold in it or a checkpoint of one."""
    path = Path(path).expanduser()
    if path.is_file() and path.suffix != ".pth":
        return False
    return _results_folder(path) is not None


def read_nnunet(
    path: Path | str,
    fold: int | str | None = None,
    checkpoint: Literal["best", "last"] = "last",
    orientation: str = "RAS",
    trust: Sequence[str] = (),
) -> Checkpoint:
    """Reads the weights of an nnU-Net, and which network, classes and images they are for.

    nnU-Net keeps the axes of its arrays as the image files have them, unless its reader
    reorients (its plans say so), and its files do not record those axes: `orientation`
    gives them. The network then turns images from RAS+ accordingly.

    Args:
        path: a results folder, a fold in it, or the checkpoint in that.
        fold: which fold; None takes `all` where there is one, else the first.
        checkpoint: after the last epoch, or of the best one; the other one where it is
            missing. Not used where `path` is a file.
        orientation: where the voxel axes of the images that nnU-Net was trained on point, as
            nibabel's `aff2axcodes` gives it: `RAS`, `LAS`, `PIR`, ...
        trust: functions and classes that the file may load beside numbers of numpy.

    Returns:
        The weights; `models` is the network, `origin` has what a user should know about
        them, in words under `notes`.

    Raises:
        WeightsError: files are missing or damaged; or the model is not supported: 2D, a
            cascade, overlapping regions, a network of another kind.
    """
    fold_files = _find_fold(Path(path).expanduser(), fold, checkpoint)
    configuration = fold_files.folder.name.rpartition("__")[2]
    plans = read_plans(fold_files.folder / "plans.json", configuration, orientation)
    dataset = json_object(fold_files.folder / "dataset.json")
    labels = _labels(dataset, fold_files.folder / "dataset.json")
    channels = _channel_names(dataset, fold_files.folder / "dataset.json")
    weights = read_checkpoint(fold_files.file, trust=(*_PLAIN_NUMBERS, *trust))
    _check_counts(weights.tensors, labels, channels, fold_files)
    models = dict(plans.models)
    if any(name.endswith(".running_mean") for name in weights.tensors):
        # nnUNetTrainerBN uses batch normalisation, although its plans name InstanceNorm3d.
        models["norm_op"] = "BatchNorm3d"
    return replace(
        weights,
        classes=tuple(labels),
        models=models,
        in_channels=len(channels),
        channel_names=channels,
        origin=_origin(fold_files, configuration, plans, labels),
    )


# -------------------------------------------------------------------- internals
def _results_folder(path: Path) -> Path | None:
    """The folder with the plans: the path itself, or the parent of its fold."""
    fold = path.parent if path.is_file() else path
    folder = fold.parent if fold.name.startswith("fold_") else path
    if not ((folder / "plans.json").is_file() and (folder / "dataset.json").is_file()):
        return None
    return folder if any(folder.glob("fold_*/")) else None


def _find_fold(
    path: Path, fold: int | str | None, checkpoint: Literal["best", "last"]
) -> NnUNetFold:
    folder = _results_folder(path)
    if folder is None:
        raise WeightsError(
            "this is not a results folder of nnU-Net v2",
            file=path,
            expected="TRAINER__PLANS__CONFIGURATION with plans.json, dataset.json and "
            "fold_0/checkpoint_final.pth",
        )
    folds = sorted(
        {file.parent.name.removeprefix("fold_") for file in folder.glob("fold_*/*.pth")},
        key=lambda name: (name != "all", len(name), name),
    )
    chosen = next(iter(folds), "0") if fold is None else str(fold).removeprefix("fold_")
    if path != folder:
        chosen = (path.parent if path.is_file() else path).name.removeprefix("fold_")
    others = tuple(name for name in folds if name != chosen)
    files = [folder / f"fold_{chosen}" / name for name in _FILES[checkpoint]]
    if path.is_file():
        return NnUNetFold(folder, chosen, path, others)
    for file in files:
        if file.is_file():
            return NnUNetFold(folder, chosen, file, others, "" if file == files[0] else checkpoint)
    existing = sorted(file.relative_to(folder).as_posix() for file in folder.glob("fold_*/*.pth"))
    raise WeightsError(
        f"nnU-Net's results have no checkpoint of fold {chosen}",
        file=folder,
        found=", ".join(existing) or "no checkpoint at all",
        expected=files[0].relative_to(folder).as_posix(),
        fix=f"finetuning.pretrained={folder / existing[0]}"
        if existing
        else "copy the checkpoint into that folder",
    )


def _labels(dataset: Mapping[str, Any], file: Path) -> dict[str, int]:
    """Class -> value in the label files, in the order of the network's outputs."""
    given = dataset.get("labels")
    values: dict[str, int] = {}
    for name, value in given.items() if isinstance(given, Mapping) else ():
        several = value if isinstance(value, list) else [value]
        if len(several) > 1:
            raise WeightsError(
                "this nnU-Net was trained on overlapping regions, which are not supported: its "
                "outputs are independent of each other, while classes exclude each other",
                file=file,
                found=f"'{name}' is made of the labels {', '.join(map(str, several))}",
                expected="one label value per class",
                fix="use an nnU-Net that was trained on labels",
            )
        if name != "ignore":
            values[name] = several[0] if several and isinstance(several[0], int) else -1
    ordered = dict(sorted(values.items(), key=lambda item: item[1]))
    distinct = len(set(ordered.values())) == len(ordered) > 1
    if not distinct or next(iter(ordered.items())) != ("background", 0):
        raise WeightsError(
            "the labels of nnU-Net's dataset cannot be read",
            file=file,
            found=given,
            expected='"labels": {"background": 0, "CA1": 1, ...}',
        )
    return ordered


def _channel_names(dataset: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    given = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(given, Mapping) or not all(str(key).isdecimal() for key in given):
        raise WeightsError(
            "the channels of nnU-Net's dataset cannot be read",
            file=file,
            found=given,
            expected='"channel_names": {"0": "T2w"}',
        )
    return tuple(str(given[key]) for key in sorted(given, key=int))


def _check_counts(
    tensors: Mapping[str, Tensor],
    labels: Mapping[str, int],
    channels: Sequence[str],
    fold_files: NnUNetFold,
) -> None:
    """Refuses weights that contradict the dataset.json beside them."""
    inputs = (
        _size(tensors, "encoder.stem.convs.0.conv.weight", 1)
        or _size(tensors, "encoder.stages.0.0.convs.0.conv.weight", 1)
    )  # fmt: skip
    outputs = _size(tensors, "decoder.seg_layers.0.weight", 0)
    for what, count, names in (("classes", outputs, labels), ("input channels", inputs, channels)):
        if count not in (None, len(names)):
            raise WeightsError(
                f"checkpoint and dataset.json disagree about the {what}",
                file=fold_files.file,
                found=f"{count} in the weights, {len(names)} in dataset.json: {', '.join(names)}",
                fix="copy the dataset.json that nnU-Net wrote into this folder",
            )


def _size(tensors: Mapping[str, Tensor], name: str, axis: int) -> int | None:
    for full_name, tensor in tensors.items():
        if full_name.endswith(name) and tensor.dim() == 5:
            return tensor.shape[axis]
    return None


def _origin(
    fold_files: NnUNetFold, configuration: str, plans: NnUNetPlans, labels: Mapping[str, int]
) -> dict[str, Any]:
    """What a user has to know about these weights, as plain values."""
    notes = list(plans.notes)
    if fold_files.other_folds:
        others = ", ".join(fold_files.other_folds)
        notes.append(f"fold {fold_files.fold} is used; other folds: {others}")
    if fold_files.missing:
        wanted = _FILES[fold_files.missing][0]
        notes.append(f"there is no {wanted}, so {fold_files.file.name} is used")
    return {
        "format": "nnU-Net v2",
        "name": fold_files.folder.name,
        "dataset": plans.dataset,
        "configuration": configuration,
        "fold": fold_files.fold,
        "other_folds": list(fold_files.other_folds),
        "checkpoint": fold_files.file.name,
        "label_values": dict(labels),
        "target_spacing_mm": list(plans.spacing_mm),
        "patch_vox": list(plans.patch_vox),
        "normalisation": list(plans.normalisation),
        "stored": plans.orientation,
        "citation": _CITATION,
        "notes": notes,
    }
