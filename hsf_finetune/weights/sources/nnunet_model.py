"""What an nnU-Net's plans and dataset.json say of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import Sides
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.labels.laterality import side_of
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.independent_outputs import with_background
from hsf_finetune.weights.sources.nnunet_plans import read_plans

_CITATION = (
    "Isensee et al. (2021). nnU-Net: a self-configuring method for deep learning-based biomedical "
    "image segmentation. Nature Methods 18:203-211. https://doi.org/10.1038/s41592-020-01008-z"
)

_MIRRORED = "inference_allowed_mirroring_axes"
"""Axes of nnU-Net's arrays along which training mirrored images."""


@dataclass(frozen=True)
class NnUNetDescription:
    """What belongs to the weights of an nnU-Net."""

    name: str
    configuration: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    files: tuple[Path, Path]
    """Those that plans and dataset come from, for messages."""
    fold: str
    other_folds: Sequence[str] = ()
    notes: Sequence[str] = ()


def with_nnunet_description(
    weights: Checkpoint, description: NnUNetDescription, orientation: str
) -> Checkpoint:
    """The weights, with the network, classes, channels, preprocessing and origin that are described.

    Raises:
        WeightsError: the description contradicts the weights, cannot be read, or is of a
            model that is not supported.
    """
    plans_file, dataset_file = description.files
    plans = read_plans(description.plans, description.configuration, orientation, plans_file)
    labels, regions = _labels(description.dataset, dataset_file)
    channels = _channel_names(description.dataset, dataset_file)
    _check_counts(weights, labels, channels)
    if len(plans.normalisation) != len(channels):
        raise WeightsError(
            "nnU-Net's plans and dataset.json disagree about the input channels",
            file=plans_file,
            found=f"normalization_schemes: {', '.join(plans.normalisation)}",
            expected=f"one for each of {', '.join(channels)}",
            fix="copy the plans.json that nnU-Net wrote into its folder",
        )
    models = dict(plans.models)
    if any(name.endswith(".running_mean") for name in weights.tensors):
        # nnUNetTrainerBN uses batch normalisation, although its plans name InstanceNorm3d.
        models["norm_op"] = "BatchNorm3d"
    notes = [*plans.notes, *description.notes]
    if regions:
        notes += _region_notes(description.dataset, labels)
    described = replace(
        weights,
        classes=tuple(labels),
        models=models,
        in_channels=len(channels),
        channel_names=channels,
        preprocessing=plans.preprocessing.model_copy(
            update={
                "channel_names": channels,
                "sides": _sides(weights, str(models["orientation"]), tuple(labels)),
            }
        ),
        origin={
            "format": "nnU-Net v2",
            "name": description.name,
            "configuration": description.configuration,
            "fold": description.fold,
            "other_folds": list(description.other_folds),
            "checkpoint": weights.path.name,
            "label_values": {BACKGROUND: 0} | labels if regions else labels,
            **({"regions": True} if regions else {}),
            **plans.origin,
            "citation": _CITATION,
            "notes": notes,
        },
    )
    return with_background(described) if regions else described


def is_nnunet_file(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint file of nnU-Net v2 holds its own plans and dataset.json."""
    given = checkpoint.described.get("init_args")
    return isinstance(given, Mapping) and all(
        isinstance(given.get(key), Mapping) for key in ("plans", "dataset_json")
    )


def describe_nnunet_file(checkpoint: Checkpoint, orientation: str) -> Checkpoint:
    """The weights of a single checkpoint file of nnU-Net v2, which holds its plans.

    Raises:
        WeightsError: as `with_nnunet_description`.
    """
    given, path = checkpoint.described["init_args"], checkpoint.path
    plans = given["plans"]
    parts = (checkpoint.described.get("trainer_name"), plans.get("plans_name"))
    description = NnUNetDescription(
        name="__".join(map(str, (*parts, given.get("configuration")))),
        configuration=str(given.get("configuration")),
        plans=plans,
        dataset=given["dataset_json"],
        files=(path, path),
        fold=str(given.get("fold")),
    )
    return with_nnunet_description(checkpoint, description, orientation)


# -------------------------------------------------------------------- internals
def _labels(dataset: Mapping[str, Any], file: Path) -> tuple[dict[str, int], bool]:
    """Class -> value in segmentations, in the order of the outputs, and whether they are regions.

    A region is made of several label values, and may overlap with others; the background has no
    output then, and the last region in their order gives a voxel its value.
    """
    given = dataset.get("labels")
    found = {**given} if isinstance(given, Mapping) else {}
    found.pop("ignore", None)
    several = {name: value if isinstance(value, list) else [value] for name, value in found.items()}
    if any(len(value) > 1 for value in several.values()):
        names = [name for name, value in several.items() if set(value) != {0}]
        order = dataset.get("regions_class_order")
        listed = order if isinstance(order, list) else []
        if len(listed) != len(names) or not all(isinstance(n, int) for n in listed):
            raise WeightsError(
                "nnU-Net's dataset does not say which of its regions counts where they overlap",
                file=file,
                found=f"regions_class_order: {order}; regions: {', '.join(names)}",
                expected="the value of each region in segmentations, in their order",
                fix="copy the dataset.json that nnU-Net wrote into its folder",
            )
        return dict(zip(names, listed, strict=True)), True
    values = {name: n[0] if n and isinstance(n[0], int) else -1 for name, n in several.items()}
    ordered = dict(sorted(values.items(), key=lambda item: item[1]))
    distinct = len(set(ordered.values())) == len(ordered) > 1
    if not distinct or next(iter(ordered.items())) != (BACKGROUND, 0):
        raise WeightsError(
            "the labels of nnU-Net's dataset cannot be read",
            file=file,
            found=given,
            expected='"labels": {"background": 0, "CA1": 1, ...}',
        )
    return ordered, False


def _region_notes(dataset: Mapping[str, Any], labels: Mapping[str, int]) -> Iterator[str]:
    """What follows from outputs that overlap."""
    made = "; ".join(f"{name} of {dataset['labels'][name]}" for name in labels)
    values = ", ".join(f"{name} {value}" for name, value in labels.items())
    yield (
        f"its classes are regions of several labels, which may overlap: {made}. In predictions a "
        f"voxel gets the value of its last region: {values}"
    )
    yield (
        "fine-tuning trains classes that exclude each other: those with the name of a region start "
        "as it is, against a background of logit 0; of others, say it by "
        "finetuning.derive_from={CLASS: REGION}"
    )


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


def _sides(weights: Checkpoint, orientation: str, classes: Sequence[str]) -> Sides | None:
    """Whether training mirrored images from left to right; None is unknown.

    nnU-Net exchanges no classes then, so that it says nothing for classes of one side.
    """
    if _MIRRORED not in weights.described:
        return None
    across = next(axis for axis, end in enumerate(orientation) if end in "LR")
    if across not in (weights.described[_MIRRORED] or ()):
        return "kept"
    return None if any(map(side_of, classes)) else "mirrored"


def _check_counts(weights: Checkpoint, labels: Mapping[str, int], channels: Sequence[str]) -> None:
    """Refuses weights that contradict their dataset.json."""
    tensors = weights.tensors
    inputs = (
        _size(tensors, "encoder.stem.convs.0.conv.weight", 1)
        or _size(tensors, "encoder.stages.0.0.convs.0.conv.weight", 1)
    )  # fmt: skip
    outputs = _size(tensors, "decoder.seg_layers.0.weight", 0)
    for what, count, names in (("classes", outputs, labels), ("input channels", inputs, channels)):
        if count not in (None, len(names)):
            raise WeightsError(
                f"checkpoint and dataset.json disagree about the {what}",
                file=weights.path,
                found=f"{count} in the weights, {len(names)} in dataset.json: {', '.join(names)}",
                fix="copy the dataset.json that nnU-Net wrote into its folder",
            )


def _size(tensors: Mapping[str, Tensor], name: str, axis: int) -> int | None:
    for full_name, tensor in tensors.items():
        if full_name.endswith(name) and tensor.dim() == 5:
            return tensor.shape[axis]
    return None
