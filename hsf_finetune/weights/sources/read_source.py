"""Reads pretrained weights from a path: of a run, an export, a file, a MONAI bundle or an nnU-Net."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.system.missing_paths import list_names, no_such_path
from hsf_finetune.system.run_folder import ENVIRONMENT, has_ended, runs_in, was_pruned
from hsf_finetune.system.walk_folder import paths_below
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.files.shards import find_index
from hsf_finetune.weights.files.state_dict import StateDict, select_prefix
from hsf_finetune.weights.files.unreadable import NNUNET_V1_FIX
from hsf_finetune.weights.sources.bundle import is_bundle, read_bundle
from hsf_finetune.weights.sources.exported_folder import weights_of_export, with_exported_card
from hsf_finetune.weights.sources.infer_network import with_inferred_network
from hsf_finetune.weights.sources.nnssl_file import describe_nnssl_file, is_nnssl_file
from hsf_finetune.weights.sources.nnunet_folder import is_nnunet, read_nnunet
from hsf_finetune.weights.sources.nnunet_model import describe_nnunet_file, is_nnunet_file
from hsf_finetune.weights.sources.nnunet_v1 import is_nnunet_v1, read_nnunet_v1
from hsf_finetune.weights.sources.other_programs import SUFFIXES, other_program_error


@dataclass(frozen=True)
class SourceOptions:
    """Which of the weights at a path to read, and how.

    Args:
        checkpoint: which checkpoint of a run; of nnU-Net it is the final one, as nnU-Net takes.
        use_ema: averaged weights where the source has both, or the raw ones.
        key_prefix: what the names of the network's tensors begin with; None finds it.
        fold: which fold of an nnU-Net, see `nnunet_folder.read_nnunet`.
        orientation: of the training images of an nnU-Net, see `nnunet_folder.read_nnunet`.
    """

    checkpoint: Literal["best", "last"] = "best"
    use_ema: bool = True
    key_prefix: str | None = None
    fold: int | str | None = None
    orientation: str = "RAS"


def read_source(pretrained: str | Path, options: SourceOptions | None = None) -> Checkpoint:
    """Reads the weights at a path: of a run, an export, a file, a MONAI bundle or an nnU-Net folder.

    Raises:
        WeightsError: the path does not exist, is none of these, or cannot be read.
        ConfigError: no tensor's name begins with the prefix.
    """
    path, options = weights_of_export(Path(pretrained).expanduser()), options or SourceOptions()
    if is_bundle(path):
        checkpoint = read_bundle(path, options.use_ema, options.orientation)
    elif is_nnunet(path):
        theirs = read_nnunet(path, options.fold, options.orientation)
        checkpoint = with_exported_card(theirs, path)
    elif is_nnunet_v1(path):
        checkpoint = read_nnunet_v1(path, options.fold, options.orientation)
    else:
        file = find_checkpoint(path, options.checkpoint)
        try:
            checkpoint = read_checkpoint(file, options.use_ema, options.key_prefix)
        except WeightsError as error:
            if other := other_program_error(file):
                raise other from error
            raise
        return _described(checkpoint, options.orientation)
    if options.key_prefix:
        found = StateDict(dict(checkpoint.tensors), left_out=checkpoint.left_out)
        found = select_prefix(found, options.key_prefix, checkpoint.path)
        checkpoint = replace(checkpoint, tensors=found.tensors, left_out=found.left_out)
    return checkpoint


def find_checkpoint(pretrained: str | Path, checkpoint: Literal["best", "last"] = "best") -> Path:
    """The checkpoint file at a path.

    Args:
        pretrained: a checkpoint, or the folder of a run; in a run of several folds it is
            that of the final model, which trained on every case, and in one of self-training
            that of the last student.
        checkpoint: which checkpoint of a run folder.

    Raises:
        WeightsError: the path does not exist, or the folder holds no such checkpoint.
    """
    path = weights_of_export(Path(pretrained).expanduser())
    if index := find_index(path):
        return index
    if path.is_file():
        return path
    if not path.is_dir():
        expected = f"a checkpoint ({', '.join(SUFFIXES)}) or the folder of a run"
        raise no_such_path(WeightsError, path, expected)
    final = path / "final"
    for folder in (path / "checkpoints", path, final / "checkpoints", final / "final/checkpoints"):
        if (folder / f"{checkpoint}.ckpt").is_file():
            return folder / f"{checkpoint}.ckpt"
    if not any((path / name).exists() for name in ("checkpoints", "best.ckpt", "last.ckpt")):
        raise _unfinished_error(path) or other_program_error(path) or _no_weights_error(path)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    other = "last" if checkpoint == "best" else "best"
    has_other = (folder / f"{other}.ckpt").is_file()
    raise WeightsError(
        f"the folder has no '{checkpoint}' checkpoint",
        file=path,
        found=list_names(folder),
        expected=f"checkpoints/{checkpoint}.ckpt",
        fix=f"finetuning.checkpoint={other}"
        if has_other
        else "give the folder of a run that has finished an epoch, or a checkpoint file",
    )


def find_single_file(pretrained: str | Path, checkpoint: Literal["best", "last"] = "best") -> Path:
    """The file whose checksum is that of the weights at a path.

    Raises:
        ConfigError: the path is a folder of several files that all matter.
        WeightsError: the path does not exist, or the folder holds no such checkpoint.
    """
    path = Path(pretrained).expanduser()
    if kind := _kind(path):
        raise ConfigError(
            "several files have no checksum",
            file=path,
            found=f"finetuning.checksum beside {kind}",
            fix="leave finetuning.checksum out"
            + ("; or give the bundle as a zip archive" if is_bundle(path) else ""),
        )
    return find_checkpoint(path, checkpoint)


def is_of_other_tool(path: Path) -> bool:
    """Whether a file or folder is of a form that this package does not write its runs in."""
    return bool(find_index(path)) or is_bundle(path) or is_nnunet(path) or is_nnunet_v1(path)


# -------------------------------------------------------------------- internals
def _described(checkpoint: Checkpoint, orientation: str) -> Checkpoint:
    """A file's weights with their network, as the file or the tensors tell it."""
    if is_nnunet_file(checkpoint):
        return describe_nnunet_file(checkpoint, orientation)
    if is_nnssl_file(checkpoint):
        return describe_nnssl_file(checkpoint, orientation)
    if any("conv_blocks_context." in n and ".blocks." in n for n in checkpoint.tensors):
        notes = [
            f"these are weights of nnU-Net v1 without their plans: {' '.join(NNUNET_V1_FIX.split())}"
        ]
        origin = checkpoint.origin | {"format": "nnU-Net v1", "notes": notes}
        return replace(checkpoint, origin=origin)
    return with_inferred_network(checkpoint)


def _kind(path: Path) -> str:
    """What another tool's weights in several files are called; empty for anything else."""
    if find_index(path):
        return "weights in several files"
    if not path.is_dir():
        return ""
    if is_bundle(path):
        return "the folder of a MONAI bundle"
    return "the results folder of an nnU-Net" if is_nnunet(path) or is_nnunet_v1(path) else ""


def _unfinished_error(path: Path) -> WeightsError | None:
    """The error for a run that has no model yet, such as one of folds; None for anything else."""
    if not ((path / "config.yaml").is_file() and (path / ENVIRONMENT).is_file()):
        return None
    parts = runs_in(path)[1:]
    ended = ", ".join(part.relative_to(path).as_posix() for part in parts if has_ended(part))
    if was_pruned(path):
        return WeightsError(
            "the run was pruned: it ended after its first fold, without a model of all cases",
            file=path,
            found=f"{ended} alone",
            fix=f"resume={path} datasets.prune_below=null trains the others and the model",
        )
    return WeightsError(
        "the run has not ended, and has no model yet",
        file=path,
        found=f"{ended} of the runs in it" if ended else "no run in it that has ended",
        fix=f"resume={path} finishes it",
    )


def _no_weights_error(path: Path) -> WeightsError:
    """The error for a folder that holds no weights, or none that can predict yet."""
    if kind := _kind(path):
        return WeightsError(
            "these weights have to be fine-tuned before they can be used",
            file=path,
            found=kind,
            expected="a run of finetune.py or train.py, or a checkpoint of one",
            fix=f"python finetune.py models=pretrained 'finetuning.pretrained={path}' datasets=...",
        )
    files = [p for p in paths_below(path) if p.suffix in SUFFIXES]
    return WeightsError(
        "no weights can be read from this folder",
        file=path,
        found=list_names(path),
        expected="one of these:\n"
        "the folder of a run: checkpoints/best.ckpt or checkpoints/last.ckpt\n"
        "a MONAI bundle: configs/metadata.json and models/model.pt\n"
        "an nnU-Net results folder: plans.json, dataset.json and fold_*/checkpoint_*.pth\n"
        "weights in several files: one .index.json, and the files that it names",
        fix=f"give a checkpoint in it: 'finetuning.pretrained={files[0]}'"
        if files
        else "give a checkpoint (" + ", ".join(SUFFIXES) + ") or one of these folders",
    )
