"""Reads weights of nnU-Net v2 from its results folders."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.archive import extract_safely
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.nnunet_model import (
    NnUNetDescription,
    with_nnunet_description,
)
from hsf_finetune.weights.sources.nnunet_plans import json_object

_FILES = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
"""Files in the order of preference: nnU-Net predicts with the final one, and publishes it alone."""


@dataclass(frozen=True)
class NnUNetFold:
    """The files of one fold of an nnU-Net.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`, with plans.json and dataset.json.
        fold: which one: `0`, ..., or `all`.
        file: its checkpoint.
        other_folds: the folds beside it.
        beside: the checkpoint of the best epoch, where that is not the one that is read.
    """

    folder: Path
    fold: str
    file: Path
    other_folds: tuple[str, ...]
    beside: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the choice, in words."""
        notes = []
        if self.other_folds:
            others = ", ".join(self.other_folds)
            notes.append(f"fold {self.fold} is used; other folds: {others}")
        if self.beside:
            notes.append(
                f"{self.file.name} is used, as nnU-Net does; of the best epoch is {self.beside}"
            )
        elif self.file.name in _FILES[1:]:
            notes.append(f"{self.file.name} is used")
        return tuple(notes)


def is_nnunet(path: Path | str) -> bool:
    """Whether this is a results folder of nnU-Net v2, a fold in it or a checkpoint of one."""
    path = Path(path).expanduser()
    if path.is_file() and path.suffix != ".pth":
        return False
    return _results_folder(path) is not None


def is_nnunet_archive(path: Path | str) -> bool:
    """Whether this is a zip archive of a results folder of nnU-Net v2."""
    path = Path(path).expanduser()
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    return "plans.json" in names and bool(names & {*_FILES})


def read_nnunet_archive(
    path: Path | str,
    fold: int | str | None = None,
    orientation: str = "RAS",
) -> Checkpoint:
    """Reads the weights of a zip archive, as `read_nnunet` does those of the folder in it.

    Raises:
        WeightsError: it cannot be unpacked, or holds several results folders; or see
            `read_nnunet`.
    """
    path = Path(path).expanduser()
    with tempfile.TemporaryDirectory(prefix="nnunet-") as folder:
        root = Path(folder) / "model"
        extract_safely(path, root)
        found = sorted(file.parent for file in root.rglob("plans.json"))
        if len(found) != 1:
            raise WeightsError(
                "there are several results folders of nnU-Net in the archive",
                file=path,
                found=", ".join(str(one.relative_to(root)) for one in found),
                fix="unpack it, and give one of them",
            )
        return replace(read_nnunet(found[0], fold, orientation), path=path)


def read_nnunet(
    path: Path | str,
    fold: int | str | None = None,
    orientation: str = "RAS",
) -> Checkpoint:
    """Reads the weights of an nnU-Net, and which network, classes and images they are for.

    nnU-Net keeps the axes of its arrays as the image files have them, unless its reader
    reorients (its plans say so), and its files do not record those axes: `orientation`
    gives them. The network then turns images from RAS+ accordingly.

    Args:
        path: a results folder, a fold in it, or the checkpoint in that.
        fold: which fold; None takes `all` where there is one, else the first.
        orientation: where the voxel axes of the images that nnU-Net was trained on point, as
            nibabel's `aff2axcodes` gives it: `RAS`, `LAS`, `PIR`, ...

    Returns:
        The weights; `models` is the network, `origin` has what a user should know about
        them, in words under `notes`.

    Raises:
        WeightsError: files are missing or damaged; or the model is not supported: 2D, a
            cascade, overlapping regions, a network of another kind.
    """
    fold_files = _find_fold(Path(path).expanduser(), fold)
    folder = fold_files.folder
    files = (folder / "plans.json", folder / "dataset.json")
    description = NnUNetDescription(
        name=folder.name,
        configuration=folder.name.rpartition("__")[2],
        plans=json_object(files[0]),
        dataset=json_object(files[1]),
        files=files,
        fold=fold_files.fold,
        other_folds=fold_files.other_folds,
        notes=fold_files.notes,
    )
    weights = read_checkpoint(fold_files.file)
    return with_nnunet_description(weights, description, orientation)


# -------------------------------------------------------------------- internals
def _results_folder(path: Path) -> Path | None:
    """The folder with the plans: the path itself, or the parent of its fold."""
    fold = path.parent if path.is_file() else path
    folder = fold.parent if fold.name.startswith("fold_") else path
    if not ((folder / "plans.json").is_file() and (folder / "dataset.json").is_file()):
        return None
    return folder if any(folder.glob("fold_*/")) else None


def _find_fold(path: Path, fold: int | str | None) -> NnUNetFold:
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
    files = [folder / f"fold_{chosen}" / name for name in _FILES]
    if path.is_file():
        return NnUNetFold(folder, chosen, path, others)
    for file in files:
        if file.is_file():
            best = files[1] if file == files[0] and files[1].is_file() else None
            return NnUNetFold(folder, chosen, file, others, best)
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
