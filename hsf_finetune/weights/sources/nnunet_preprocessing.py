"""How nnU-Net's plans say that images are prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    Preprocessing,
    UnchangedIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.system.errors import WeightsError

_USUAL, _NONE = "resample_data_or_seg_to_shape", "no_resampling_hack"
"""nnU-Net's names of its way of resampling, and of leaving images as they are."""
_USUAL_ARGUMENTS = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
_FIXED: Mapping[str, Intensity] = {
    "NoNormalization": UnchangedIntensity(),
    "RescaleTo01Normalization": MinMaxIntensity(),
    "RGBTo01Normalization": WindowIntensity(low=0, high=255, clip=False),
}
_SCHEMES = ("ZScoreNormalization", "CTNormalization", *_FIXED)
_LEAST_STD = 1e-8


def read_preprocessing(
    plans: Mapping[str, Any], chosen: Mapping[str, Any], axes: Sequence[int], path: Path
) -> Preprocessing:
    """The preprocessing of a configuration (Isensee et al., 2021, Nature Methods 18:203-211).

    Images are cropped to what is not 0, normalised, resampled, and padded to a patch.

    Raises:
        WeightsError: intensities are normalised by an unknown scheme.
        KeyError, TypeError, IndexError, ValueError: it cannot be read.
    """
    spacing, patch = chosen.get("spacing"), chosen["patch_size"]
    if str(chosen.get("resampling_fn_data")) == _NONE:
        spacing = None
    schemes = [str(scheme) for scheme in chosen["normalization_schemes"]]
    masks = list(chosen.get("use_mask_for_norm") or [False] * len(schemes))
    properties = plans.get("foreground_intensity_properties_per_channel", {})
    intensities = [
        _intensity(scheme, masked, properties.get(str(channel), {}), path)
        for channel, (scheme, masked) in enumerate(zip(schemes, masks, strict=True))
    ]
    size = [int(patch[axis]) for axis in axes]
    return Preprocessing.model_validate(
        {
            "spacing_mm": [float(spacing[axis]) for axis in axes] if spacing else None,
            "resampling": "nnunet",
            "intensity": intensities[:1] if len(set(intensities)) == 1 else intensities,
            "intensity_first": True,
            "fill_values": "kept",
            "crop": "nonzero",
            "padding": "symmetric",
            "padded_size": "window",
            "patch_vox": size,
            "window_vox": size,
        }
    )


def unusual_resampling(chosen: Mapping[str, Any]) -> str | None:
    """How a configuration resamples images, where that is not nnU-Net's usual way."""
    name = str(chosen.get("resampling_fn_data", _USUAL))
    given = chosen.get("resampling_fn_data_kwargs") or {}
    if name == _NONE or (name == _USUAL and {**_USUAL_ARGUMENTS, **given} == _USUAL_ARGUMENTS):
        return None
    arguments = ", ".join(f"{key}={value}" for key, value in given.items())
    return f"{name}({arguments})"


# -------------------------------------------------------------------- internals
def _intensity(scheme: str, masked: object, properties: Mapping[str, Any], path: Path) -> Intensity:
    """What is done to the intensities of one channel."""
    if scheme in _FIXED:
        return _FIXED[scheme]
    if scheme == "ZScoreNormalization":
        return ZScoreIntensity(mask="nonzero_filled" if masked else "whole")
    if scheme == "CTNormalization":
        return ZScoreIntensity(
            clip=(float(properties["percentile_00_5"]), float(properties["percentile_99_5"])),
            mean=float(properties["mean"]),
            std=max(float(properties["std"]), _LEAST_STD),
        )
    raise WeightsError(
        "nnU-Net's plans normalise intensities by a scheme that is not known",
        file=path,
        found=scheme,
        expected=", ".join(_SCHEMES),
        fix='name the nearest of these in "normalization_schemes" of the plans',
    )
