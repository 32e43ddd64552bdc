"""MONAI's transforms that prepare a scan as this package does, as a bundle writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    IntensitySteps,
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
    """The steps from files to what the inferer is given.

    MONAI pads the larger half at the back; between two flips that is the front, as here.

    Args:
        how: orientation, voxel size, crop, intensity and padding.
        divisor: of the network.
    """
    parts: dict[str, list[Config]] = {"C": [], "S": [], "I": []}
    if how.crop in ("nonzero", "positive"):
        chosen = "$lambda x: x > 0" if how.crop == "positive" else "$lambda x: x != 0"
        crop: Config = {"source_key": "image", "select_fn": chosen, "margin": how.crop_margin_vox}
        parts["C"] = [transform("CropForegroundd", **crop, allow_smaller=True)]
    if how.spacing_mm:
        parts["S"] = [transform("Spacingd", pixdim=list(how.spacing_mm), mode="bilinear")]
    parts["I"] = normalisation(how.intensity[0])
    return [
        transform("LoadImaged"),
        transform("EnsureChannelFirstd"),
        transform("EnsureTyped", dtype="$torch.float32"),
        transform("Orientationd", axcodes=how.orientation, labels=_ENDS),
        *(step for letter in how.order for step in parts[letter]),
        *_padding(how, divisor),
    ]


def slides(how: Preprocessing) -> bool:
    """Whether MONAI's own windows are meant, before which scans need no padding."""
    return how.padded_size == "window" and how.blending != "gaussian"


def inferer(how: Preprocessing) -> Config:
    """How the network is applied: to scans in one piece, or through MONAI's windows."""
    if not slides(how):
        return {"_target_": "SimpleInferer"}
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(how.window_vox),
        "overlap": how.overlap,
        "mode": "constant" if how.blending == "constant" else "gaussian",
        "sigma_scale": how.sigma_share,
        "padding_mode": _padding_mode(how),
    }


def _padding(how: Preprocessing, divisor: Sequence[int]) -> list[Config]:
    mode = {"mode": _padding_mode(how), "method": "end" if how.padding == "end" else "symmetric"}
    multiple: Sequence[int] | None = how.multiple_vox
    least: Sequence[int] | None = how.least_vox
    if not slides(how):
        # A network that halves needs two voxels at its deepest level.
        window = how.window_vox if how.padded_size == "window" else (1, 1, 1)
        least = [*map(max, padded_shape(window, divisor), how.least_vox or (1, 1, 1))]
        multiple = [*map(math.lcm, divisor, how.multiple_vox or (1, 1, 1))]
    padding = [transform("DivisiblePadd", k=list(multiple), **mode)] if multiple else []
    padding += [transform("SpatialPadd", spatial_size=list(least), **mode)] if least else []
    if how.padding == "both":
        flip = transform("Flipd", spatial_axis=[0, 1, 2])
        padding = [flip, *padding, flip]
    return padding


def _padding_mode(how: Preprocessing) -> str:
    return "constant" if how.padding_mode == "zeros" else how.padding_mode


def normalisation(intensity: Intensity) -> list[Config]:
    """The steps that do to intensities what `normalise_intensity` does."""
    if isinstance(intensity, IntensitySteps):
        return [one for step in intensity.steps for one in normalisation(step)]
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
