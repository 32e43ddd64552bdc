"""Reads one checkpoint file without running anything in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import FORMAT, META_KEY, NETWORK_PREFIX, Checkpoint
from hsf_finetune.weights.files.class_names import find_class_names
from hsf_finetune.weights.files.onnx_file import is_onnx, load_onnx
from hsf_finetune.weights.files.safetensors_file import is_safetensors, load_safetensors
from hsf_finetune.weights.files.shards import digest_of_shards, find_index, load_shards
from hsf_finetune.weights.files.state_dict import (
    StateDict,
    find_state_dict,
    no_weights_error,
    select_prefix,
)
from hsf_finetune.weights.files.torch_file import load_torch_file
from hsf_finetune.weights.files.unreadable import unreadable_error

_MOST_SHARED = 32
"""How often tensors may use the same numbers; networks that share layers do so a few times."""
_SMALL_BYTES = 1 << 20
_DESCRIPTIONS = (
    "init_args", "trainer_name", "inference_allowed_mirroring_axes", "nnssl_adaptation_plan",
    "citations", "hyper_parameters",
    "hparams", "cfg", "config", "args", "classes", "class_names", "labels", "label_names",
)  # fmt: skip
"""Where other programs describe their weights: nnU-Net, nnssl, Lightning, and plain scripts."""


def read_checkpoint(
    path: Path | str,
    use_ema: bool = True,
    key_prefix: str | None = None,
) -> Checkpoint:
    """Reads weights without running any code that the file may carry.

    This package writes Lightning checkpoints: `state_dict` (names after `network.`),
    with EMA also `current_model_state` (the weights that were not averaged), and
    `hsf_finetune` with the format version, classes and settings. Where other files
    have their weights is found from their content, not from their suffix.

    Args:
        path: the file.
        use_ema: averaged weights where the file has both, or the raw ones.
        key_prefix: what the names of the network's tensors begin with; None finds it.

    Raises:
        WeightsError: the file is missing, damaged, no checkpoint, or holds NaN or infinite
            weights.
        ConfigError: no name begins with the prefix.
    """
    path = Path(path)
    content, origin = _load(path)
    meta = _meta(content, path) if isinstance(content, Mapping) else None
    weights = find_state_dict(content, path, use_ema)
    if key_prefix:
        weights = select_prefix(weights, key_prefix, path)
    elif meta is not None:
        weights = _network_part(weights, path)
    check_values(weights.tensors, path)
    # What programs write beside the weights to describe them, by the names they use.
    given = content if isinstance(content, Mapping) else {}
    described = {key: given[key] for key in _DESCRIPTIONS if key in given}
    meta = meta or {}
    preprocessing = _preprocessing_of(meta, path)
    # What a model of this package keeps of the weights that it was fine-tuned from.
    known = meta.get("origin")
    recorded = {k: v for k, v in known.items() if k != "format"} if isinstance(known, dict) else {}
    return Checkpoint(
        tensors=weights.tensors,
        classes=tuple(meta["classes"])
        if meta.get("classes")
        else find_class_names(described, weights.tensors),
        meta=meta or None,
        path=path,
        digest=digest_of_shards(path) if find_index(path) else Checksum.of_file(path).digits,
        averaged=weights.averaged,
        models=meta.get("models"),
        in_channels=meta.get("in_channels"),
        channel_names=preprocessing.channel_names if preprocessing else meta.get("channel_names"),
        preprocessing=preprocessing,
        origin=origin | recorded | ({"key": weights.key} if weights.key else {}),
        described=described,
        left_out=weights.left_out,
    )


def check_values(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuses weights that no network can run with.

    Raises:
        WeightsError: a value is NaN or infinite, or a tensor is not a dense array that
            the file holds in full.
    """
    unusable = [name for name, t in tensors.items() if not _is_dense(t)]
    if unusable:
        raise WeightsError(
            "the checkpoint holds tensors that are not plain dense arrays",
            file=path,
            found=", ".join(unusable[:6]),
            expected="tensors that the file holds in full, number by number",
            fix="save them so: {name: tensor.to_dense().clone() for each of the state dict}",
        )
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors.values()}
    held = sum(storage.nbytes() for storage in storages.values())
    if sum(t.nbytes for t in tensors.values()) > _MOST_SHARED * held + _SMALL_BYTES:
        raise WeightsError(
            "the checkpoint's tensors share their numbers many times over",
            file=path,
            found=f"{len(tensors):,} tensors in {held:,} bytes",
            expected="tensors with numbers of their own",
            fix="get it again from its publisher: it is damaged, or made to do harm",
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
def _preprocessing_of(meta: Mapping[str, Any], path: Path) -> Preprocessing | None:
    """How a model of this package is given scans; None of what others have written."""
    if not meta.keys() & {"preprocessing", "window_vox"}:
        return None
    try:
        return Preprocessing.from_card(meta)
    except ValueError as error:
        raise WeightsError(
            "the checkpoint's description of its preprocessing cannot be read",
            file=path,
            found=str(error)[:300],
            expected="a checkpoint as finetune.py or train.py of this version wrote it",
        ) from error


def _load(path: Path) -> tuple[object, dict[str, Any]]:
    """What a file holds, and its format and metadata."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise WeightsError("there is no checkpoint file", file=path, found=found)
    if find_index(path):
        tensors = load_shards(path, lambda file: find_state_dict(_load(file)[0], file).tensors)
        return tensors, {"format": "in several files"}
    try:
        if is_safetensors(path):
            tensors, metadata = load_safetensors(path)
            return tensors, {"format": "safetensors"} | ({"remarks": metadata} if metadata else {})
        if is_onnx(path):
            return load_onnx(path), {"format": "ONNX"}
        return load_torch_file(path), {"format": "PyTorch"}
    except OSError as error:
        raise unreadable_error(path, error) from error


def _network_part(weights: StateDict, path: Path) -> StateDict:
    """The network's tensors of a checkpoint of this package, which also has the loss's."""
    if not any(name.startswith(NETWORK_PREFIX) for name in weights.tensors):
        raise no_weights_error(path, f"no tensor whose name starts with '{NETWORK_PREFIX}'")
    return replace(select_prefix(weights, NETWORK_PREFIX, path), left_out=())


def _meta(content: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    meta = content.get(META_KEY)
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
        raise WeightsError("the checkpoint's classes are not a list of names", file=path)
    return meta


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    # Types of one byte have no isfinite.
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(wide.isfinite().all())


def _is_dense(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    # A stride of 0 lets a small file claim a tensor larger than the memory.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
