"""Reads weights of nnU-Net v2 from its results folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.archive import archive_names, unpacked
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.nnunet_model import NnUNetDescription, with_nnunet_description
from hsf_finetune.weights.sources.nnunet_plans import json_object

_FILES = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
"""Files in the order of preference: nnU-Net predicts with the final one, and publishes it alone."""


def is_nnunet(path: Path | str) -> bool:
    """Whether this is a results folder of nnU-Net v2, a fold or a checkpoint in it, or an archive."""
    path = Path(path).expanduser()
    if path.is_file() and path.suffix != ".pth":
        names = {name.rpartition("/")[2] for name in archive_names(path)}
        return "plans.json" in names and bool(names & {*_FILES})
    return _results_folder(path) is not None


def read_nnunet(
    path: Path | str, fold: int | str | None = None, orientation: str = "RAS"
) -> Checkpoint:
    """Reads the weights of an nnU-Net, and which network, classes and images they are for.

    nnU-Net keeps the axes of its arrays as the image files have them, unless its reader
    reorients (its plans say so), and its files do not record those axes: `orientation`
    gives them. The network then turns images from RAS+ accordingly.

    Args:
        path: a results folder, a fold in it, the checkpoint in that, or an archive of the folder.
        fold: which fold; None takes `all` where there is one, else the first.
        orientation: where the voxel axes of the images that nnU-Net was trained on point, as
            nibabel's `aff2axcodes` gives it: `RAS`, `LAS`, `PIR`, ...

    Returns:
        The weights; `models` is the network, `origin` has what a user should know about
        them, in words under `notes`.

    Raises:
        WeightsError: files are missing or damaged; the model is not supported: 2D, a cascade,
            overlapping regions, a network of another kind; or an archive cannot be unpacked, or
            holds several results folders.
    """
    path = Path(path).expanduser()
    with unpacked(path) as root:
        if root == path:
            return _read(path, fold, orientation)
        found = sorted(file.parent for file in root.rglob("plans.json"))
        if len(found) != 1:
            raise WeightsError(
                "there are several results folders of nnU-Net in the archive",
                file=path,
                found=", ".join(str(one.relative_to(root)) for one in found),
                fix="unpack it, and give one of them",
            )
        return replace(_read(found[0], fold, orientation), path=path)


def choose_fold(names: Iterable[str], fold: int | str | None) -> tuple[str, list[str], list[str]]:
    """The fold to read, the others, and what to say of the choice."""
    known = sorted(names, key=lambda name: (name != "all", len(name), name))
    chosen = next(iter(known), "0") if fold is None else str(fold).removeprefix("fold_")
    others = [name for name in known if name != chosen]
    note = f"fold {chosen} is used; other folds: {', '.join(others)}"
    return chosen, others, [note] if others else []


# -------------------------------------------------------------------- internals
def _read(path: Path, fold: int | str | None, orientation: str) -> Checkpoint:
    file, others, notes = _find_fold(path, fold)
    folder = file.parent.parent
    files = (folder / "plans.json", folder / "dataset.json")
    description = NnUNetDescription(
        name=folder.name,
        configuration=folder.name.rpartition("__")[2],
        plans=json_object(files[0]),
        dataset=json_object(files[1]),
        files=files,
        fold=file.parent.name.removeprefix("fold_"),
        other_folds=others,
        notes=notes,
    )
    return with_nnunet_description(read_checkpoint(file), description, orientation)


def _results_folder(path: Path) -> Path | None:
    """The folder with the plans: the path itself, or the parent of its fold."""
    fold = path.parent if path.is_file() else path
    folder = fold.parent if fold.name.startswith("fold_") else path
    if not ((folder / "plans.json").is_file() and (folder / "dataset.json").is_file()):
        return None
    return folder if any(folder.glob("fold_*/")) else None


def _find_fold(path: Path, fold: int | str | None) -> tuple[Path, list[str], list[str]]:
    """The checkpoint to read, the folds beside it, and what to say of the choice."""
    folder = _results_folder(path)
    if folder is None:
        raise WeightsError(
            "this is not a results folder of nnU-Net v2",
            file=path,
            expected="TRAINER__PLANS__CONFIGURATION with plans.json, dataset.json and "
            "fold_0/checkpoint_final.pth",
        )
    if path != folder:
        fold = (path.parent if path.is_file() else path).name
    folds = {file.parent.name.removeprefix("fold_") for file in folder.glob("fold_*/*.pth")}
    chosen, others, notes = choose_fold(folds, fold)
    files = [folder / f"fold_{chosen}" / name for name in _FILES]
    if file := path if path.is_file() else next((one for one in files if one.is_file()), None):
        if file == files[0] != path and files[1].is_file():
            notes.append(f"{file.name} is used, as nnU-Net does; of the best epoch is {files[1]}")
        elif file.name in _FILES[1:]:
            notes.append(f"{file.name} is used")
        return file, others, notes
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
