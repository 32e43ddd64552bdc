"""A preprocessing in words."""

from __future__ import annotations

from collections.abc import Iterator

from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    IntensitySteps,
    MinMaxIntensity,
    PercentileIntensity,
    Preprocessing,
    UnchangedIntensity,
    WindowIntensity,
)
from hsf_finetune.data.preprocessing.contradictions import sizes_text

_SIDES = {"kept": "left and right as in scans", "mirrored": "mirrored in training, too"}
_CROP_AFTER = {
    "reading": "",
    "resampling": ", of the resampled scan",
    "intensity": ", of changed intensities",
}


def describe_preprocessing(value: Preprocessing) -> dict[str, str]:
    """Name of a part -> what it is, in words; parts that say nothing are left out."""
    margin = f", and {value.crop_margin_vox} voxels around" if value.crop_margin_vox else ""
    has_crop = value.crop != "none"
    first = "before scans are resampled" if value.intensity_first else "as the network sees them"
    names = value.channel_names or ()
    labels = names if len(names) == len(value.intensity) else range(1, len(value.intensity) + 1)
    intensities = [describe_intensity(one) for one in value.intensity]
    if len(intensities) > 1:
        pairs = zip(labels, intensities, strict=True)
        intensities = [f"{label}: {text}" for label, text in pairs]
    found = {
        "orientation": value.orientation,
        "spacing_mm": sizes_text(value.spacing_mm) or "of each scan",
        "resampling": value.resampling if value.spacing_mm else "none",
        "intensity": "; ".join(intensities) + (f", {first}" if value.spacing_mm else ""),
        "fill_values": "left out" if value.fill_values == "outside" else "kept",
        "crop": value.crop + margin + (_CROP_AFTER[value.crop_after] if has_crop else ""),
        "padding": ", ".join(_padding_parts(value)),
        "patch_vox": sizes_text(value.patch_vox),
        "window_vox": ", ".join(_window_parts(value)),
        "channel_names": ", ".join(names),
        "sides": _SIDES.get(value.sides or "", ""),
    }
    return {name: text for name, text in found.items() if text}


def describe_intensity(intensity: Intensity) -> str:
    """What is done to the intensities of a channel, in words."""
    if isinstance(intensity, IntensitySteps):
        return ", then ".join(map(describe_intensity, intensity.steps))
    if isinstance(intensity, UnchangedIntensity):
        return "unchanged"
    mask = {"nonzero": " of voxels that are not 0", "nonzero_filled": " inside the head or body"}
    counted = mask.get(getattr(intensity, "mask", ""), "")
    if isinstance(intensity, WindowIntensity | PercentileIntensity | MinMaxIntensity):
        a, b = (f"{end:g}" for end in intensity.to)
        if isinstance(intensity, MinMaxIntensity):
            return f"smallest and largest to {a} and {b}"
        percent = " %" if isinstance(intensity, PercentileIntensity) else ""
        clipped = ", clipped" if intensity.clip else ""
        return f"{intensity.low:g}{percent} to {intensity.high:g}{percent}{counted} to {a} and {b}{clipped}"
    text = f"z-score{counted}"
    if intensity.clip is not None:
        text = f"clipped to {intensity.clip[0]:g} and {intensity.clip[1]:g}, {text}"
    if intensity.mean is not None:
        text += f", mean {intensity.mean:g}"
    return text + (f", standard deviation {intensity.std:g}" if intensity.std is not None else "")


# -------------------------------------------------------------------- internals
def _padding_parts(value: Preprocessing) -> Iterator[str]:
    yield value.padding
    if value.padding_mode != "zeros":
        yield f"by voxels of the scan ({value.padding_mode})"
    if value.padded_size == "window":
        yield "to windows"
    if value.multiple_vox:
        yield f"to multiples of {sizes_text(value.multiple_vox)}"
    if value.least_vox:
        yield f"to at least {sizes_text(value.least_vox)}"


def _window_parts(value: Preprocessing) -> Iterator[str]:
    yield sizes_text(value.window_vox)
    if value.overlap != Preprocessing.model_fields["overlap"].default:
        yield f"overlap {value.overlap:g}"
    if value.blending != "gaussian":
        yield {"monai": "MONAI's Gaussian", "constant": "equal weights"}[value.blending]
    if value.sigma_share != Preprocessing.model_fields["sigma_share"].default:
        yield f"deviation {value.sigma_share:g}"
