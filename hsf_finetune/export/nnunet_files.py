"""plans.json, dataset.json and the checkpoint of an nnU-Net v2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hsf_finetune.config.settings import NnUNetSettings
from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    UnchangedIntensity,
    ZScoreIntensity,
)
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.networks.layers.strides import triple
from hsf_finetune.networks.padding import padded_shape

CONFIGURATION, PLANS, TRAINER = "3d_fullres", "nnUNetPlans", "nnUNetTrainer"
_READ_AXES = "SAR"
"""Axes of arrays of nnU-Net's reader that turns every image to RAS."""
_DATASET = re.compile(r"Dataset(\d{3})_\w[\w-]*")
_LAYERS = ("conv_op", "norm_op", "dropout_op", "nonlin")
Plain = dict[str, Any]


def scheme_of(intensity: Intensity) -> tuple[str, bool, Plain] | None:
    """nnU-Net's name for what is done to intensities; None where it has none.

    Returns:
        The name, whether only what is not 0 counts, and the statistics that it needs.
    """
    if isinstance(intensity, UnchangedIntensity):
        return "NoNormalization", False, {}
    if isinstance(intensity, MinMaxIntensity) and intensity.to == (0.0, 1.0):
        return "RescaleTo01Normalization", False, {}
    if not isinstance(intensity, ZScoreIntensity) or intensity.mask == "nonzero":
        return None
    given = (intensity.clip, intensity.mean, intensity.std)
    if given == (None, None, None):
        return "ZScoreNormalization", intensity.mask != "whole", {}
    if None in given or intensity.clip is None:
        return None
    low, high = intensity.clip
    ends = {"percentile_00_5": low, "percentile_99_5": high}
    return "CTNormalization", False, {"mean": intensity.mean, "std": intensity.std, **ends}


def dataset_number(name: str) -> str | None:
    """The three digits of a name such as `Dataset123_Mine`; None where it is none of nnU-Net's."""
    found = _DATASET.fullmatch(name)
    return found[1] if found else None


def dataset_json(model: TrainedModel) -> Plain:
    """dataset.json, whose label values are the channels: nnU-Net needs consecutive ones."""
    card = model.card
    names = card.preprocessing.channel_names or [f"channel{n}" for n in range(card.in_channels)]
    return {
        "name": model.name,
        "channel_names": {str(number): name for number, name in enumerate(names)},
        "labels": {name: number for number, name in enumerate(card.classes)},
        "numTraining": card.data.cases if card.data else 0,
        "file_ending": ".nii.gz",
    }


def patch_size(model: TrainedModel) -> tuple[int, int, int]:
    """The patch, along RAS: nnU-Net pads smaller scans to it, and takes larger ones in windows.

    It is the window of the model where that pads so, too; otherwise the median size of the
    training scans, so that most are taken almost as they are.
    """
    how, data = model.card.preprocessing, model.card.data
    size = data.size_vox if data and how.padded_size == "multiple" else how.window_vox
    return padded_shape(size, model.anatomy.divisor)


def plans_json(model: TrainedModel, dataset_name: str) -> Plain:
    """plans.json with one configuration, for arrays whose axes are those of the network."""
    settings = model.card.models
    assert isinstance(settings, NnUNetSettings)
    how, axes = model.card.preprocessing, settings.orientation
    transpose = [_READ_AXES.index(letter) for letter in axes]
    along = ["RAS".index(letter) for letter in axes]
    data = model.card.data
    spacing = how.spacing_mm or (data.spacing_mm if data else (1.0, 1.0, 1.0))
    size = data.size_vox if data else patch_size(model)
    one_per_channel = [how.intensity_of(number) for number in range(model.card.in_channels)]
    schemes = [scheme for one in one_per_channel if (scheme := scheme_of(one))]
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [patch_size(model)[axis] for axis in along],
        "median_image_size_in_voxels": [float(size[axis]) for axis in along],
        "spacing": [float(spacing[axis]) for axis in along],
        "normalization_schemes": [name for name, _, _ in schemes],
        "use_mask_for_norm": [masked for _, masked, _ in schemes],
        **_resampling(is_resampled=how.spacing_mm is not None),
        "architecture": _architecture(settings),
        "batch_dice": False,
    }
    return {
        "dataset_name": dataset_name,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": configuration["spacing"],
        "original_median_shape_after_transp": configuration["median_image_size_in_voxels"],
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": transpose,
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(number): properties for number, (_, _, properties) in enumerate(schemes)
        },
    }


def network_weights(model: TrainedModel) -> dict[str, Tensor]:
    """The tensors under nnU-Net's names, with zeros for heads that only training uses."""
    settings = model.card.models
    assert isinstance(settings, NnUNetSettings)
    state = model.anatomy.network.state_dict()
    tensors = {name: tensor.cpu().clone() for name, tensor in state.items()}
    classes = len(model.card.classes)
    for head, features in enumerate(settings.features_per_stage[-2::-1]):
        name = f"decoder.seg_layers.{head}"
        tensors.setdefault(f"{name}.weight", torch.zeros(classes, features, 1, 1, 1))
        tensors.setdefault(f"{name}.bias", torch.zeros(classes))
    return tensors


# -------------------------------------------------------------------- internals
def _resampling(is_resampled: bool) -> Plain:
    """nnU-Net's own functions, or the one that leaves every scan as it is."""
    entries: Plain = {}
    for what in ("data", "seg", "probabilities"):
        orders = {"is_seg": what == "seg", "order": 3 if what == "data" else 1}
        own = orders | {"order_z": 0, "force_separate_z": None}
        name = "resample_data_or_seg_to_shape" if is_resampled else "no_resampling_hack"
        entries[f"resampling_fn_{what}"] = name
        entries[f"resampling_fn_{what}_kwargs"] = own if is_resampled else {}
    return entries


def _architecture(settings: NnUNetSettings) -> Plain:
    """The network as plans describe it: layers by their full names, sizes for each axis."""
    stages = len(settings.features_per_stage)
    plain = settings.architecture == "PlainConvUNet"
    own: Plain = {"stem_channels": settings.stem_channels}
    if plain:
        own = {"nonlin_first": settings.nonlin_first}
    layers: Mapping[str, type[nn.Module] | None] = {
        "conv_op": nn.Conv3d,
        "norm_op": _layer(settings.norm_op),
        "dropout_op": _layer(settings.dropout_op),
        "nonlin": _layer(settings.nonlin),
    }
    arguments = {
        "n_stages": stages,
        "features_per_stage": settings.features_per_stage,
        "kernel_sizes": _triples(settings.kernel_sizes or [3] * stages),
        "strides": _triples(settings.strides or [1] + [2] * (stages - 1)),
        "n_conv_per_stage" if plain else "n_blocks_per_stage": settings.n_blocks_per_stage,
        "n_conv_per_stage_decoder": settings.n_conv_per_stage_decoder,
        "conv_bias": settings.conv_bias,
        "norm_op_kwargs": settings.norm_op_kwargs,
        "dropout_op_kwargs": settings.dropout_op_kwargs,
        "nonlin_kwargs": settings.nonlin_kwargs,
        **own,
        **{
            name: f"{layer.__module__}.{layer.__qualname__}" if layer else None
            for name, layer in layers.items()
        },
    }
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{settings.architecture}",
        "arch_kwargs": arguments,
        "_kw_requires_import": list(_LAYERS),
    }


def _layer(name: str | None) -> type[nn.Module] | None:
    return getattr(nn, name) if name else None


def _triples(sizes: Sequence[int | Sequence[int]]) -> list[list[int]]:
    return [list(triple(size)) for size in sizes]
