"""What nnU-Net v1 records of a model, in the form of v2's plans and dataset.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.stand_in import StandIn

_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_SCHEMES = {"CT": "CTNormalization", "noNorm": "NoNormalization", "CT2": "CT2"}
"""v1's names of normalisation; any other one is a z-score. CT2 has no counterpart."""
_USUAL_PREPROCESSORS = ("GenericPreprocessor", "None")
_OTHER_TRAINERS = re.compile(r"cascade|region|(?<!l)relu|slope|gelu|mish|frn|_gn", re.IGNORECASE)
"""In the names of v1's trainers whose networks differ in what no tensor shows."""
_BLOCK = re.compile(
    r"conv_blocks_(context|localization)\.(\d+)(?:\.([01]))?\.blocks\.(\d+)"
    r"\.(conv|instnorm)\.(.+)"
)
_FIRST = "encoder.stages.{}.0.convs.0.conv.weight"
_UP = re.compile(r"tu\.(\d+)\.weight")
_STUNET = "conv_blocks_context.{}.0.conv1.weight"
"""The first convolution of a level of STU-Net."""
_HEAD = re.compile(r"seg_outputs\.(\d+)\.(weight|bias)")


def plain_value(value: Any) -> Any:
    """A value of a pickle with arrays as lists and NumPy's numbers as Python's.

    Raises:
        ValueError, RecursionError: there is something else in it.
    """
    if isinstance(value, StandIn):
        if (array := value.array()) is not None:
            return array.tolist()
        match value.name.rpartition(".")[2], value.arguments:
            case "scalar", (StandIn() as kind, bytes(content)) if kind.arguments[0] in _CODES:
                return np.frombuffer(content, f"<{kind.arguments[0]}")[0].item()
        return str(value)
    if isinstance(value, Mapping):
        return {plain_value(key): plain_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(one) for one in value]
    return value


def renamed_tensors(weights: Checkpoint, trainer: str) -> dict[str, Tensor]:
    """The tensors of v1's Generic_UNet under the names of PlainConvUNet, as in v2.

    v1's upsampling and its convolutions to logits have no bias, where v2's have; zeros are the
    same function.

    Raises:
        WeightsError: they are of another network.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in weights.tensors.items()}
    names = {name: _new_name(name, given) for name in given}
    others = [name for name, new in names.items() if new is None]
    if others or _OTHER_TRAINERS.search(trainer):
        raise WeightsError(
            "this model of nnU-Net v1 has a network that this package does not build",
            file=weights.path,
            found=f"trainer {trainer}" + (f", tensors {', '.join(others[:4])}" if others else ""),
            expected="the Generic_UNet of nnUNetTrainerV2 (convolutions, instance or batch "
            "normalisation, leaky ReLU), not the second of a cascade",
        )
    found: dict[str, Tensor] = {}
    for name, new in names.items():
        tensor, new = given[name], str(new)
        found[new] = tensor
        bias = re.sub(r"weight$", "bias", new)
        if "transpconvs" in new:
            found[bias] = tensor.new_zeros(tensor.shape[1])
        elif "seg_layers" in new and new.endswith("weight"):
            found.setdefault(bias, tensor.new_zeros(tensor.shape[0]))
    return found


def described_plans(
    plans: Mapping[str, Any], stage: int | None, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The plans in v2's form.

    Args:
        plans: of v1.
        stage: which of its stages; None is the only one.
        tensors: from `renamed_tensors`, for the widths, of which v1 records the first only; of
            another network widths do not matter.

    Raises:
        KeyError, TypeError, IndexError, ValueError: they cannot be read.
    """
    stages = plans["plans_per_stage"]
    number = next(iter(stages)) if stage is None else stage
    chosen = stages[number]
    pools = chosen.get("pool_op_kernel_sizes") or _pools(chosen["num_pool_per_axis"])
    if levels := sum(_STUNET.format(level) in tensors for level in range(len(tensors))):
        # STU-Net has as many levels whatever the plans say.
        pools = [*pools, *[[1] * len(pools[0])] * levels][: levels - 1]
        chosen = {**chosen, "conv_kernel_sizes": [[3] * len(pools[0])] * levels}
    kernels = chosen.get("conv_kernel_sizes") or [[3] * len(pools[0])] * (len(pools) + 1)
    channels = range(int(plans["num_modalities"]))
    intensities = plans["dataset_properties"].get("intensityproperties") or {}
    network = _network(kernels, pools, int(plans.get("conv_per_stage", 2)), tensors)
    preprocessor = str(plans.get("preprocessor_name"))
    configuration = {
        "architecture": {"network_class_name": "PlainConvUNet", "arch_kwargs": network},
        "patch_size": chosen["patch_size"],
        "spacing": chosen["current_spacing"],
        "normalization_schemes": [
            _SCHEMES.get(str(plans["normalization_schemes"][channel]), "ZScoreNormalization")
            for channel in channels
        ],
        "use_mask_for_norm": [bool(plans["use_mask_for_norm"][channel]) for channel in channels],
        **({} if preprocessor in _USUAL_PREPROCESSORS else {"resampling_fn_data": preprocessor}),
    }
    return {
        "dataset_name": _dataset_name(plans),
        "transpose_forward": plans.get("transpose_forward") or [0, 1, 2],
        "configurations": {f"stage{number}": configuration},
        "foreground_intensity_properties_per_channel": {
            str(key): {**value, "std": value["sd"]}
            for key, value in intensities.items()
            if isinstance(value, Mapping) and "sd" in value
        },
    }


def described_classes(
    plans: Mapping[str, Any], dataset: Mapping[str, Any] | None
) -> tuple[dict[str, Any], list[str]]:
    """Classes and channels in the form of v2's dataset.json, and what a user should know of them.

    Raises:
        KeyError, TypeError, ValueError: they cannot be read.
    """
    names = {str(key): str(name) for key, name in (plans.get("modalities") or {}).items()}
    names = names or {str(n): f"channel {n}" for n in range(int(plans["num_modalities"]))}
    if dataset is not None:
        labels = dataset["labels"]
        if all(str(key).isdecimal() for key in labels):  # v1 has value: name
            labels = {str(name): int(value) for value, name in labels.items()}
        values = [value for value in labels.values() if value != 0]
        labels = {BACKGROUND: 0} | {n: v for n, v in labels.items() if v != 0}
        if sorted(map(int, values)) != sorted(map(int, plans["all_classes"])):
            raise ValueError(f"dataset.json has the labels {values}, not {plans['all_classes']}")
        return {"labels": labels, "channel_names": names}, []
    values = [int(value) for value in plans["all_classes"]]
    labels = {BACKGROUND: 0} | {f"label {value}": value for value in values}
    note = (
        f"nnU-Net v1 records no names of classes, only the values {', '.join(map(str, values))}: "
        "put the dataset.json of its training beside plans.pkl, or give "
        "finetuning.source_classes=[background, ...]"
    )
    return {"labels": labels, "channel_names": names}, [note]


# -------------------------------------------------------------------- internals
def _new_name(name: str, tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name in PlainConvUNet of a tensor of Generic_UNet; None of any other network's."""
    if found := _BLOCK.fullmatch(name):
        part, level, half, block, layer, rest = found.groups()
        position = int(block)
        if half == "1":  # the last convolution of a stage stands apart from those before it
            first = name[: found.start(3)] + "0.blocks."
            position += len(
                {n[len(first) :].partition(".")[0] for n in tensors if n.startswith(first)}
            )
        kind = "norm" if layer == "instnorm" else "conv"
        stage = f"encoder.stages.{level}.0" if part == "context" else f"decoder.stages.{level}"
        return f"{stage}.convs.{position}.{kind}.{rest}"
    if found := _UP.fullmatch(name):
        return f"decoder.transpconvs.{found[1]}.weight"
    if found := _HEAD.fullmatch(name):
        return f"decoder.seg_layers.{found[1]}.{found[2]}"
    return None


def _network(
    kernels: Sequence[Sequence[int]],
    pools: Sequence[Sequence[int]],
    convs: int,
    tensors: Mapping[str, Tensor],
) -> dict[str, Any]:
    """The arguments of `PlainConvUNet` that make v1's network of it."""
    return {
        "n_stages": len(kernels),
        "features_per_stage": [
            int(tensors[name].shape[0]) if (name := _FIRST.format(level)) in tensors else 1
            for level in range(len(kernels))
        ],
        "conv_op": "Conv3d" if len(pools[0]) == 3 else "Conv2d",
        "kernel_sizes": kernels,
        "strides": [[1] * len(pools[0]), *pools],
        "n_conv_per_stage": convs,
        "n_conv_per_stage_decoder": convs,
        "decoder_kernels": "below",
        "conv_bias": True,
        "norm_op": "InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
        "nonlin_kwargs": {"negative_slope": 0.01, "inplace": True},
    }


def _pools(per_axis: list[int]) -> list[list[int]]:
    """Where each level halves, of the oldest plans, which only count how often each axis does."""
    most = max(per_axis)
    return [[2 if most - count <= level else 1 for count in per_axis] for level in range(most)]


def _dataset_name(plans: Mapping[str, Any]) -> str:
    """The task's name: the folder of its preprocessed images."""
    parts = re.split(r"[\\/]", str(plans.get("preprocessed_data_folder", "")))
    return next((part for part in reversed(parts) if part.startswith("Task")), "unknown")
