"""What `finetuning.pretrained` may be, and which reader it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.content import Weights, below_prefix
from hsf_finetune.weights.files.read_checkpoint import check_values, read_checkpoint
from hsf_finetune.weights.sources.bundle import is_bundle, read_bundle
from hsf_finetune.weights.sources.nnunet_folder import is_nnunet, read_nnunet

_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


def locate(pretrained: str | Path, checkpoint: Literal["best", "last"] = "best") -> Path:
    """The checkpoint of a run that a path means.

    Args:
        pretrained: a checkpoint, or the folder of a run; of one of several folds it is the
            final model, which trained on every case.
        checkpoint: which checkpoint of a run folder.

    Raises:
        WeightsError: nothing is there, or the folder holds no such checkpoint.
    """
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(
            "there is no checkpoint and no run",
            file=path,
            found=_listing(path.parent) if path.parent.is_dir() else "no such folder",
            expected="a checkpoint (" + ", ".join(_SUFFIXES) + ") or the folder of a run",
        )
    for folder in (path / "checkpoints", path, path / "final" / "checkpoints"):
        if (folder / f"{checkpoint}.ckpt").is_file():
            return folder / f"{checkpoint}.ckpt"
    if not any((path / name).exists() for name in ("checkpoints", "best.ckpt", "last.ckpt")):
        raise _no_source(path)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    other = "last" if checkpoint == "best" else "best"
    has_other = (folder / f"{other}.ckpt").is_file()
    raise WeightsError(
        f"the folder has no '{checkpoint}' checkpoint",
        file=path,
        found=_listing(folder),
        expected=f"checkpoints/{checkpoint}.ckpt",
        fix=f"finetuning.checkpoint={other}"
        if has_other
        else "give the folder of a run that has ended an epoch, or a checkpoint file",
    )


def locate_file(pretrained: str | Path, checkpoint: Literal["best", "last"] = "best") -> Path:
    """The one file that `finetuning.pretrained` means, as `locate` finds it, to be checked.

    Raises:
        ConfigError: it means a folder of several files that all matter.
        WeightsError: nothing is there, or the folder holds no such checkpoint.
    """
    path = Path(pretrained).expanduser()
    if path.is_dir() and (kind := _kind(path)):
        raise ConfigError(
            "a folder has no checksum",
            file=path,
            found=f"finetuning.checksum beside {kind}",
            fix="leave finetuning.checksum out"
            + ("; or give the bundle as a zip archive" if is_bundle(path) else ""),
        )
    return locate(path, checkpoint)


def read_source(
    pretrained: str | Path,
    checkpoint: Literal["best", "last"] = "best",
    use_ema: bool = True,
    key_prefix: str | None = None,
    trust: Sequence[str] = (),
    fold: int | str | None = None,
    stored: str = "RAS",
) -> Checkpoint:
    """The weights at a path: of a run, a file, a MONAI bundle or an nnU-Net folder.

    Args:
        pretrained: the file or folder.
        checkpoint: which checkpoint of a folder that has several; nnU-Net calls the last
            one final.
        use_ema: averaged weights where the source has both, or the raw ones.
        key_prefix: what the names of the network's tensors begin with; None finds it.
        trust: functions and classes that a pickle may load beside tensors and plain data.
        fold: which fold of an nnU-Net; None leaves it to `read_nnunet`.
        stored: how the images of an nnU-Net lay, as `read_nnunet` has it.

    Raises:
        WeightsError: nothing is there, it is none of these, or it cannot be read.
        ConfigError: no name begins with the prefix.
    """
    path = Path(pretrained).expanduser()
    if is_bundle(path):
        return _checked(read_bundle(path, use_ema, trust), key_prefix)
    if is_nnunet(path):
        return _checked(read_nnunet(path, fold, checkpoint, stored, trust), key_prefix)
    return read_checkpoint(locate(path, checkpoint), use_ema, key_prefix, trust)


# -------------------------------------------------------------------- internals
def _checked(checkpoint: Checkpoint, prefix: str | None) -> Checkpoint:
    """The part of a checkpoint whose names begin with a prefix, which must be in order."""
    if prefix:
        weights = below_prefix(Weights(dict(checkpoint.tensors), ""), prefix, checkpoint.path)
        left_out = (*checkpoint.left_out, *weights.left_out)
        checkpoint = replace(checkpoint, tensors=weights.tensors, left_out=left_out)
    check_values(checkpoint.tensors, checkpoint.path)
    return checkpoint


def _kind(path: Path) -> str:
    """What a folder of weights that others made is called; empty for any other folder."""
    if is_bundle(path):
        return "the folder of a MONAI bundle"
    return "the results folder of an nnU-Net" if is_nnunet(path) else ""


def _no_source(path: Path) -> WeightsError:
    """The error for a folder that is no source of weights, with what was looked for."""
    if kind := _kind(path):
        return WeightsError(
            "these weights have to be fine-tuned before they can be used",
            file=path,
            found=kind,
            expected="a run of finetune.py or train.py, or a checkpoint of one",
            fix=f"python finetune.py models=pretrained 'finetuning.pretrained={path}' datasets=...",
        )
    files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES)
    return WeightsError(
        "the folder is none that weights can be read from",
        file=path,
        found=_listing(path),
        expected="one of these, which it was compared with:\n"
        "the folder of a run: checkpoints/best.ckpt or checkpoints/last.ckpt\n"
        "a MONAI bundle: configs/metadata.json and models/model.pt\n"
        "an nnU-Net results folder: plans.json, dataset.json and fold_*/checkpoint_*.pth",
        fix=f"give a checkpoint in it: 'finetuning.pretrained={files[0]}'"
        if files
        else "give a checkpoint (" + ", ".join(_SUFFIXES) + ") or one of these folders",
    )


def _listing(folder: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    shown = ", ".join(names[:12]) or "nothing"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
