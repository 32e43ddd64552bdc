"""Checkpoints: where they lie, and how they are read without running anything in them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hsf_finetune.errors import WeightsError
from hsf_finetune.weights.unreadable import EXPECTED, unreadable

OWN = "hsf_finetune"
"""Key of our own remarks inside a checkpoint."""
FORMAT = 1
"""Version of those remarks."""
PREFIX = "network."
"""What our Lightning module puts before the network's tensor names."""

_NESTS = ("state_dict", "model_state_dict", "model", "network", "network_weights")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Pretrained weights, on the CPU.

    Args:
        tensors: name -> tensor; the network's own names for our checkpoints, and
            whatever the file says for others.
        classes: class of each output channel, background first; None if not recorded.
        meta: our remarks (models, in_channels, label_values, ...); None for files
            written by others.
        path: the file.
        digest: SHA-256 of the file.
        averaged: whether these are averaged (EMA) weights.
    """

    tensors: Mapping[str, torch.Tensor]
    classes: tuple[str, ...] | None
    meta: dict[str, Any] | None
    path: Path
    digest: str
    averaged: bool = False


def locate(pretrained: str | Path, checkpoint: Literal["best", "last"] = "best") -> Path:
    """The file that `finetuning.pretrained` means.

    Args:
        pretrained: a checkpoint, or the folder of a run.
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
            expected="a checkpoint (.ckpt, .pt, .pth) or the folder of a run",
        )
    for folder in (path / "checkpoints", path):
        if (folder / f"{checkpoint}.ckpt").is_file():
            return folder / f"{checkpoint}.ckpt"
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


def read_checkpoint(path: Path | str, use_ema: bool = True) -> Checkpoint:
    """Reads weights without running any code that the file may carry.

    Ours is a Lightning checkpoint: `state_dict` (names after `network.`), with EMA
    also `current_model_state` (the weights that were not averaged), and
    `hsf_finetune` with the format version, classes and settings. Of other files the
    tensors are taken from the top level or from state_dict, model or network.

    Args:
        path: the file.
        use_ema: averaged weights where the file has both, or the raw ones.

    Raises:
        WeightsError: the file is missing, damaged, no checkpoint, needs code to be
            read, or holds NaN or infinite weights.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, Mapping):
        raise _not_a_checkpoint(path, f"a {type(content).__name__}")
    meta = _meta(content, path)
    both = isinstance(content.get("current_model_state"), Mapping)
    state = content["current_model_state"] if both and not use_ema else _state(content, path)
    tensors = {str(k): v.detach() for k, v in state.items() if isinstance(v, torch.Tensor)}
    if meta is not None:
        tensors = {k[len(PREFIX) :]: v for k, v in tensors.items() if k.startswith(PREFIX)}
        if not tensors:
            raise _not_a_checkpoint(path, f"no tensor whose name starts with '{PREFIX}'")
    _check_values(tensors, path)
    return Checkpoint(
        tensors=tensors,
        classes=tuple(meta["classes"]) if meta and meta.get("classes") else None,
        meta=meta,
        path=path,
        digest=_digest(path),
        averaged=both and use_ema,
    )


def _load(path: Path) -> object:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise WeightsError("there is no checkpoint file", file=path, found=found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load fails in a dozen ways (zip, pickle, unicode, index errors, ...),
        # none of which tells a user what to do.
        raise unreadable(path, error) from error


def _meta(content: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    meta = content.get(OWN)
    if meta is None:
        return None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        version = meta.get("format") if isinstance(meta, dict) else meta
        raise WeightsError(
            "the checkpoint is of another format version",
            file=path,
            found=version,
            expected=FORMAT,
            fix="update hsf_finetune, or save the checkpoint with this version",
        )
    classes = meta.get("classes")
    if classes is not None and not (
        isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    ):
        raise WeightsError("the checkpoint's classes are no list of names", file=path)
    return meta


def _state(content: Mapping[str, Any], path: Path, depth: int = 0) -> Mapping[str, Any]:
    for key in _NESTS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and depth < 2:
            try:
                return _state(inner, path, depth + 1)
            except WeightsError:
                continue
    if any(isinstance(value, torch.Tensor) for value in content.values()):
        return content
    keys = ", ".join(str(key) for key in list(content)[:12]) or "nothing"
    raise _not_a_checkpoint(path, f"a dictionary of: {keys}")


def _not_a_checkpoint(path: Path, found: str) -> WeightsError:
    return WeightsError("the file holds no weights", file=path, found=found, expected=EXPECTED)


def _check_values(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    odd = [name for name, t in tensors.items() if not _is_dense(t)]
    if odd:
        raise WeightsError(
            "the checkpoint holds tensors that are not plain dense arrays",
            file=path,
            found=", ".join(odd[:6]),
        )
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise WeightsError(
            f"NaN or infinite values in {len(broken)} of {len(tensors)} tensors",
            file=path,
            found=", ".join(broken[:6]) + (" ..." if len(broken) > 6 else ""),
            expected="finite weights",
            fix="take an earlier checkpoint: that training has diverged",
        )


def _is_dense(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    # A stride of 0 lets a small file claim a tensor larger than the memory.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _digest(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def _listing(folder: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    shown = ", ".join(names[:12]) or "nothing"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
