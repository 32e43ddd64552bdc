"""One checkpoint file, read without running anything in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.networks.architectures.arunet import arunet_models
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import FORMAT, OWN, PREFIX, Checkpoint
from hsf_finetune.weights.files.content import Weights, below_prefix, find_weights, no_weights
from hsf_finetune.weights.files.safetensors_file import is_safetensors, load_safetensors
from hsf_finetune.weights.files.torch_file import load_torch_file
from hsf_finetune.weights.files.unreadable import unreadable


def read_checkpoint(
    path: Path | str,
    use_ema: bool = True,
    key_prefix: str | None = None,
    trust: Sequence[str] = (),
) -> Checkpoint:
    """Reads weights without running any code that the file may carry.

    Ours is a Lightning checkpoint: `state_dict` (names after `network.`), with EMA
    also `current_model_state` (the weights that were not averaged), and
    `hsf_finetune` with the format version, classes and settings. Where other files
    have their weights is found out, by what they hold and not by their suffix.

    Args:
        path: the file.
        use_ema: averaged weights where the file has both, or the raw ones.
        key_prefix: what the names of the network's tensors begin with; None finds it.
        trust: functions and classes that the file may load beside plain data.

    Raises:
        WeightsError: the file is missing, damaged, no checkpoint, needs code to be
            read that is not trusted, or holds NaN or infinite weights.
        ConfigError: no name begins with the prefix.
    """
    path = Path(path)
    content, origin = _load(path, trust)
    meta = _meta(content, path) if isinstance(content, Mapping) else None
    weights = find_weights(content, path, use_ema)
    if key_prefix:
        weights = below_prefix(weights, key_prefix, path)
    elif meta is not None:
        weights = _own(weights, path)
    check_values(weights.tensors, path)
    meta = meta or {}
    return Checkpoint(
        tensors=weights.tensors,
        classes=tuple(meta["classes"]) if meta.get("classes") else None,
        meta=meta or None,
        path=path,
        digest=_digest(path),
        averaged=weights.averaged,
        models=meta.get("models") or arunet_models(weights.tensors),
        in_channels=meta.get("in_channels"),
        channel_names=meta.get("channel_names"),
        origin=origin | ({"key": weights.key} if weights.key else {}),
        left_out=weights.left_out,
    )


def check_values(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuses weights that no network can be run with.

    Args:
        tensors: name -> tensor.
        path: the file they come from.

    Raises:
        WeightsError: a value is NaN or infinite, or a tensor is no dense array that its
            memory holds in full.
    """
    odd = [name for name, t in tensors.items() if not _is_dense(t)]
    if odd:
        raise WeightsError(
            "the checkpoint holds tensors that are not plain dense arrays",
            file=path,
            found=", ".join(odd[:6]),
            expected="tensors that the file holds in full, number by number",
            fix="save them so: {name: tensor.to_dense().clone() for each of the state dict}",
        )
    broken = [n for n, t in tensors.items() if not _is_finite(t)]
    if broken:
        raise WeightsError(
            f"NaN or infinite values in {len(broken)} of {len(tensors)} tensors",
            file=path,
            found=", ".join(broken[:6]) + (" ..." if len(broken) > 6 else ""),
            expected="finite weights",
            fix="take an earlier checkpoint: that training has diverged",
        )


# -------------------------------------------------------------------- internals
def _load(path: Path, trust: Sequence[str]) -> tuple[object, dict[str, Any]]:
    """What a file holds, and remarks on it."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise WeightsError("there is no checkpoint file", file=path, found=found)
    try:
        if is_safetensors(path):
            tensors, remarks = load_safetensors(path)
            return tensors, {"format": "safetensors"} | ({"remarks": remarks} if remarks else {})
        return load_torch_file(path, trust), {"format": "PyTorch"}
    except OSError as error:
        raise unreadable(path, error) from error


def _own(weights: Weights, path: Path) -> Weights:
    """The network's part of one of our checkpoints, which also has the loss's tensors."""
    if not any(name.startswith(PREFIX) for name in weights.tensors):
        raise no_weights(path, f"no tensor whose name starts with '{PREFIX}'")
    return replace(below_prefix(weights, PREFIX, path), left_out=())


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


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    # Types of one byte have no test of their own.
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(wide.isfinite().all())


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
