"""How scans are prepared in a run: by the user, the weights, the data or HSF."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.text import Text

from hsf_finetune.config.settings import HSF_PREPROCESSING, Preprocessing, Settings
from hsf_finetune.config.settings.datasets_settings import DatasetsSettings
from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    UnchangedIntensity,
    WindowIntensity,
)
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.nnunet_rules import preprocessing_by_nnunet
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.system.console import TitledTable
from hsf_finetune.system.errors import ConfigError, DataError

_USER, _WEIGHTS, _RUN, _HSF = "your settings", "the weights", "the resumed run", "HSF's rules"
_NNUNET = "the data, by nnU-Net's rules"
_SPACING_RATIO = 1.5
"""Ratio of voxel sizes that is worth a warning."""


@dataclass(frozen=True)
class PreprocessingChoice:
    """How scans are prepared, and where each part of it comes from.

    Args:
        value: how.
        origins: name of a part -> where it comes from.
        warnings: what is doubtful about it.
    """

    value: Preprocessing
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def for_network(self, divisor: Sequence[int]) -> PreprocessingChoice:
        """The same with patches and windows in multiples of what the network needs."""
        patch, window = self.value.patch_vox, self.value.window_vox
        sizes = {
            "patch_vox": padded_shape(patch, divisor) if patch else None,
            "window_vox": padded_shape(window, divisor),
        }
        return replace(self, value=self.value.model_copy(update=sizes))

    def table(self) -> TitledTable:
        """One row per part: what it is, and where it comes from."""
        table = TitledTable("Preprocessing")
        for heading in ("part", "value", "from"):
            table.add_column(heading)
        for name, text in describe_preprocessing(self.value).items():
            title = name.removesuffix("_vox").removesuffix("_mm").replace("_", " ")
            table.add_row(title, Text(text), self.origins[name])
        return table


@dataclass(frozen=True)
class KnownPreprocessing:
    """What is known of how scans are to be prepared, apart from the settings.

    Args:
        weights: as the pretrained weights say; None where they do not.
        resumed: as the run that is resumed has prepared them; None for a new one.
    """

    weights: Preprocessing | None = None
    resumed: Preprocessing | None = None


def choose_preprocessing(
    settings: Settings, cases: Sequence[Case], channels: int, known: KnownPreprocessing
) -> PreprocessingChoice:
    """How the scans of a run are prepared.

    Args:
        settings: of the run.
        cases: those that train, for rules that follow the data.
        channels: of the scans.
        known: what the weights and the run say.

    Raises:
        ConfigError: what is given does not fit the channels.
        DataError: a case cannot be read, where the rules ask for it.
    """
    data, chosen = settings.datasets, settings.preprocessing
    names = tuple(data.channel_names) if data.channel_names else None
    base, origin = _base(settings, cases, known)
    parts = {name: getattr(base, name) for name in Preprocessing.model_fields}
    origins = dict.fromkeys(parts, origin)
    if len(base.intensity) > 1:
        parts["intensity"] = _for_channels(base, names, channels, origin)
    given = {name: value for name, value in chosen if name in parts and value is not None}
    if "intensity" in given:
        given["intensity"] = _by_channel(given["intensity"], names, channels)
    spacing = chosen.spacing if chosen.spacing is not None else data.target_spacing_mm
    if spacing is not None:
        given["spacing_mm"] = None if spacing == "data" else tuple(spacing)
    origins |= dict.fromkeys(given, _USER)
    sizes = {"channel_names": names, **_sizes(data, base if origin in (_WEIGHTS, _RUN) else None)}
    origins |= {name: f"datasets.{name}" for name in sizes}
    if sizes["window_vox"] != tuple(data.window_vox):
        origins["window_vox"] = origin
    value = Preprocessing.model_validate(parts | given | sizes)
    return PreprocessingChoice(value, origins, _warnings(value, known.weights, cases))


def describe_preprocessing(value: Preprocessing) -> dict[str, str]:
    """Name of a part -> what it is, in words."""
    margin = f", and {value.crop_margin_vox} voxels around" if value.crop_margin_vox else ""
    first = "before scans are resampled" if value.intensity_first else "as the network sees them"
    names = value.channel_names or ()
    labels = names if len(names) == len(value.intensity) else range(1, len(value.intensity) + 1)
    intensities = [describe_intensity(one) for one in value.intensity]
    if len(intensities) > 1:
        pairs = zip(labels, intensities, strict=True)
        intensities = [f"{label}: {text}" for label, text in pairs]
    found = {
        "orientation": value.orientation,
        "spacing_mm": _sizes_text(value.spacing_mm) or "of each scan",
        "resampling": value.resampling if value.spacing_mm else "none",
        "intensity": "; ".join(intensities) + (f", {first}" if value.spacing_mm else ""),
        "fill_values": "left out" if value.fill_values == "outside" else "kept",
        "crop": value.crop + margin,
        "padding": value.padding + (", to windows" if value.padded_size == "window" else ""),
        "patch_vox": _sizes_text(value.patch_vox),
        "window_vox": _sizes_text(value.window_vox),
        "channel_names": ", ".join(names),
    }
    return {name: text for name, text in found.items() if text}


def describe_intensity(intensity: Intensity) -> str:
    """What is done to the intensities of a channel, in words."""
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
def _base(
    settings: Settings, cases: Sequence[Case], known: KnownPreprocessing
) -> tuple[Preprocessing, str]:
    """What holds where the settings say nothing, and where that comes from."""
    if known.resumed is not None:
        return known.resumed, _RUN
    rules = settings.preprocessing.rules
    if rules == "weights" and known.weights is not None:
        return known.weights, _WEIGHTS
    if rules == "nnunet":
        return preprocessing_by_nnunet(cases, settings.datasets.channel_names), _NNUNET
    return HSF_PREPROCESSING, _HSF


def _sizes(data: DatasetsSettings, model: Preprocessing | None) -> dict[str, Any]:
    """Patches and windows; where the user has left windows as they are, those of the model."""
    patch = None if data.patch_vox == "auto" else tuple(data.patch_vox)
    window = tuple(data.window_vox)
    default = tuple(DatasetsSettings.model_fields["window_vox"].default)
    if model is not None and window == default:
        window = model.window_vox
    return {"patch_vox": patch, "window_vox": window}


def _by_channel(
    given: Intensity | list[Intensity] | dict[str, Intensity],
    names: tuple[str, ...] | None,
    channels: int,
) -> tuple[Intensity, ...]:
    """The user's intensities, one for all channels or one for each.

    Raises:
        ConfigError: they are of other channels.
    """
    if isinstance(given, dict):
        wrong = [name for name in given if name not in (names or ())]
        missing = [name for name in names or () if name not in given]
        if names is None or wrong or missing:
            close = difflib.get_close_matches(wrong[0], names or (), n=1) if wrong else []
            raise ConfigError(
                "preprocessing.intensity does not name the input channels",
                found=", ".join(given),
                expected=", ".join(names) if names else "names of channels: datasets.channel_names",
                fix=f"did you mean '{close[0]}'?"
                if close
                else "datasets.channel_names=[T1w, T2w] names the channels, in the order of mri:",
            )
        return tuple(given[name] for name in names)
    if isinstance(given, list):
        if len(given) != channels:
            raise ConfigError(
                "preprocessing.intensity has one entry for each input channel, or one for all",
                found=len(given),
                expected=channels,
            )
        return tuple(given)
    return (given,)


def _for_channels(
    base: Preprocessing, names: tuple[str, ...] | None, channels: int, origin: str
) -> tuple[Intensity, ...]:
    """Intensities of each channel of other data, for these channels: by name, or by position.

    Raises:
        ConfigError: nothing says which of them belongs to which channel.
    """
    theirs = base.channel_names
    if theirs and names and set(names) <= set(theirs):
        return tuple(base.intensity[theirs.index(name)] for name in names)
    if len(set(base.intensity)) == 1:
        return base.intensity[:1]
    if len(base.intensity) == channels and not (theirs and names):
        return base.intensity
    raise ConfigError(
        f"{origin} say what is done to the intensities of other channels",
        found=", ".join(names) if names else f"{channels} channel(s)",
        expected=", ".join(theirs) if theirs else f"{len(base.intensity)} channel(s)",
        fix="preprocessing.intensity={kind: zscore} for all channels, or a list for each",
    )


def _warnings(
    value: Preprocessing, weights: Preprocessing | None, cases: Sequence[Case]
) -> tuple[str, ...]:
    """How far the voxel size of the weights is from that of the data."""
    wanted = weights.spacing_mm if weights else None
    if wanted is None:
        return ()
    try:
        grids = [VoxelGrid.from_header(case.images[0], HSF_PREPROCESSING) for case in cases]
    except DataError:  # reading the cases refuses it with more words
        return ()
    own = np.median([grid.spacing_mm for grid in grids], axis=0)
    ratios = np.maximum(own / wanted, wanted / own)
    if ratios.max() < _SPACING_RATIO:
        return ()
    what = (
        f"the weights are for voxels of {_sizes_text(wanted)} mm, and those of the data are "
        f"{_sizes_text(own.tolist())} mm: {ratios.max():.2g} times as large or small"
    )
    if value.spacing_mm == wanted:
        return (f"{what}; scans are resampled (preprocessing.spacing=data keeps them)",)
    return (f"{what}; what they know of sizes does not hold for these scans",)


def _sizes_text(sizes: Sequence[float] | None) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes) if sizes else ""
