"""MONAI's transforms that prepare a scan as this package does, as a bundle writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.networks.padding import padded_shape

Config = dict[str, Any]
"""Entries of a bundle's configuration."""
_ENDS = [["L", "R"], ["P", "A"], ["I", "S"]]
"""Names of the ends of axes, of which MONAI's default changes with its version."""


def transform(name: str, keys: str | Sequence[str] = "image", **arguments: Any) -> Config:
    """A transform of a dictionary's entries."""
    return {"_target_": name, "keys": keys, **arguments}


def compose_transforms(*steps: Config | str) -> Config:
    """Transforms one after the other; a text refers to others."""
    return {"_target_": "Compose", "transforms": list(steps)}


def preparation(how: Preprocessing, divisor: Sequence[int]) -> list[Config]:
    """The steps from files to the network's input.

    MONAI pads the larger half at the back; between two flips that is the front, as here.

    Args:
        how: orientation, crop, intensity and padding.
        divisor: of the network.
    """
    steps = [
        transform("LoadImaged"),
        transform("EnsureChannelFirstd"),
        transform("EnsureTyped", dtype="$torch.float32"),
        transform("Orientationd", axcodes=how.orientation, labels=_ENDS),
    ]
    if how.crop in ("nonzero", "positive"):
        chosen = "$lambda x: x > 0" if how.crop == "positive" else "$lambda x: x != 0"
        crop: Config = {"source_key": "image", "select_fn": chosen, "margin": how.crop_margin_vox}
        steps.append(transform("CropForegroundd", **crop, allow_smaller=False))
    steps += normalisation(how.intensity[0])
    # A network that halves needs two voxels at its deepest level.
    least = list(
        padded_shape(how.window_vox if how.padded_size == "window" else (1, 1, 1), divisor)
    )
    method = "end" if how.padding == "end" else "symmetric"
    padding = [
        transform("DivisiblePadd", k=list(divisor), method=method),
        transform("SpatialPadd", spatial_size=least, method=method),
    ]
    if how.padding == "both":
        flip = transform("Flipd", spatial_axis=[0, 1, 2])
        padding = [flip, *padding, flip]
    return steps + padding


def normalisation(intensity: Intensity) -> list[Config]:
    """The step that does to intensities what `normalise_intensity` does."""
    if isinstance(intensity, ZScoreIntensity):
        given: Config = {"subtrahend": intensity.mean, "divisor": intensity.std}
        known = {name: value for name, value in given.items() if value is not None}
        step = transform("NormalizeIntensityd", channel_wise=True, **known)
        return [step | ({"nonzero": True} if intensity.mask == "nonzero" else {})]
    if isinstance(intensity, WindowIntensity):
        ends: Config = {"a_min": intensity.low, "a_max": intensity.high}
        to: Config = {"b_min": intensity.to[0], "b_max": intensity.to[1], "clip": intensity.clip}
        return [transform("ScaleIntensityRanged", **ends, **to)]
    if isinstance(intensity, PercentileIntensity):
        ends = {"lower": intensity.low, "upper": intensity.high, "channel_wise": True}
        to = {"b_min": intensity.to[0], "b_max": intensity.to[1], "clip": intensity.clip}
        return [transform("ScaleIntensityRangePercentilesd", **ends, **to)]
    if isinstance(intensity, MinMaxIntensity):
        ends = {"minv": intensity.to[0], "maxv": intensity.to[1], "channel_wise": True}
        return [transform("ScaleIntensityd", **ends)]
    return []


def map_labels(model: TrainedModel, keys: str, back: bool = False) -> Config:
    """From class numbers to label values, or back."""
    values = [int(model.card.label_values[name]) for name in model.card.classes]
    numbers = list(range(len(values)))
    pair = (values, numbers) if back else (numbers, values)
    return transform("MapLabelValued", keys, orig_labels=pair[0], target_labels=pair[1])


def label_type(model: TrainedModel) -> str:
    """The smallest integers that hold the label values, as an expression."""
    kinds = [np.min_scalar_type(int(value)) for value in model.card.label_values.values()]
    return f"$np.{np.result_type(np.uint8, *kinds).name}"
