"""How scans are prepared in a run: by the user, the weights, the data or HSF."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from hsf_finetune.config.settings import HSF_PREPROCESSING, Preprocessing, Settings
from hsf_finetune.config.settings.datasets_settings import DatasetsSettings
from hsf_finetune.config.settings.preprocessing_settings import Intensity
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.contradictions import (
    contrary_intensities,
    contrary_spacing,
    sizes_text,
)
from hsf_finetune.data.preprocessing.describe_preprocessing import describe_preprocessing
from hsf_finetune.data.preprocessing.nnunet_rules import preprocessing_by_nnunet
from hsf_finetune.data.preprocessing.resampling import Triple
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.system.console import TitledTable
from hsf_finetune.system.errors import ConfigError, DataError

_USER, _WEIGHTS, _RUN, _HSF = "your settings", "the weights", "the resumed run", "HSF's rules"
_NNUNET = "the data, by nnU-Net's rules"
_FITTED = "the weights, at most as large as scans"
_SIZES = ("patch_vox", "window_vox")


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

    def for_network(
        self, divisor: Sequence[int], learned_vox: Sequence[int] | None = None
    ) -> PreprocessingChoice:
        """The same with patches and windows in multiples of what the network needs.

        Args:
            divisor: of the network, along (x, y, z).
            learned_vox: size of the volumes that a transformer's positions were learned for.
        """
        patch = padded_shape(self.value.patch_vox, divisor) if self.value.patch_vox else None
        sizes = {"patch_vox": patch, "window_vox": padded_shape(self.value.window_vox, divisor)}
        warnings = self.warnings
        if patch and learned_vox and patch != tuple(learned_vox):
            warnings += (
                f"the network's positions were learned for {sizes_text(learned_vox)} voxels, and are "
                f"interpolated for patches of {sizes_text(patch)} (datasets.patch_vox)",
            )
        return replace(self, value=self.value.model_copy(update=sizes), warnings=warnings)

    def with_sides(self, mirrored: bool) -> PreprocessingChoice:
        """The same where training mirrors scans from left to right, or does not."""
        value = self.value.model_copy(update={"sides": "mirrored" if mirrored else "kept"})
        return replace(self, value=value, origins={**self.origins, "sides": "augmentation.flip"})

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
        channel_names: of the weights' input channels; None where they have none.
    """

    weights: Preprocessing | None = None
    resumed: Preprocessing | None = None
    channel_names: tuple[str, ...] | None = None


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
    if len(base.intensity) > 1 and chosen.intensity is None:
        parts["intensity"] = _for_channels(base, names, channels, origin)
    given = {name: value for name, value in chosen if name in parts and value is not None}
    if "intensity" in given:
        given["intensity"] = _by_channel(given["intensity"], names, channels)
    spacing = chosen.spacing if chosen.spacing is not None else data.target_spacing_mm
    if spacing is not None:
        given["spacing_mm"] = None if spacing == "data" else tuple(spacing)
    origins |= dict.fromkeys(given, _USER)
    given["channel_names"], origins["channel_names"] = names, "datasets.channel_names"
    for name in _SIZES:
        given[name], origins[name] = _size(name, data, base, origin)
    value = Preprocessing.model_validate(parts | given)
    fitted = _fit_sizes(value, origins, cases)
    if fitted:
        value = value.model_copy(update=fitted)
        origins |= dict.fromkeys(fitted, _FITTED)
    warnings = _warnings(value, origins, cases, known)
    return PreprocessingChoice(value, origins, tuple(warnings))


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


def _size(
    name: str, data: DatasetsSettings, base: Preprocessing, origin: str
) -> tuple[tuple[int, ...] | None, str]:
    """Patch or window, and where it comes from: the settings, if the user has changed them."""
    given, default = getattr(data, name), DatasetsSettings.model_fields[name].default
    known = getattr(base, name) if origin != _HSF else None
    if known is not None and given in ("auto", default):
        return known, origin
    return (None if given == "auto" else tuple(given)), f"datasets.{name}"


def _fit_sizes(
    value: Preprocessing, origins: Mapping[str, str], cases: Sequence[Case]
) -> dict[str, Triple]:
    """Patch and window of the weights, where they are larger than every scan that trains.

    Where volumes are padded to windows, the rest of them would be empty.
    """
    patch = value.patch_vox
    usual = patch == tuple(DatasetsSettings.model_fields["patch_vox"].default)
    if origins["patch_vox"] != _WEIGHTS or patch is None or not cases:
        return {}
    if usual and value.padded_size != "window":
        return {}
    try:
        shapes = [VoxelGrid.from_header(case.images[0], value).shape for case in cases]
    except DataError:  # reading the cases refuses it with more words
        return {}
    most = [max(sizes) for sizes in zip(*shapes, strict=True)]
    names = _SIZES if value.padded_size == "window" else _SIZES[:1]
    found = {}
    for name in names:
        size = getattr(value, name)
        x, y, z = (min(n, m) for n, m in zip(size, most, strict=True))
        if origins[name] == _WEIGHTS and (x, y, z) != size:
            found[name] = (x, y, z)
    return found


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
                expected=f"{channels}, as mri: has in the dataset's YAML",
                fix="preprocessing.intensity=[" + ", ".join(["{kind: zscore}"] * channels) + "]",
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
    value: Preprocessing,
    origins: Mapping[str, str],
    cases: Sequence[Case],
    known: KnownPreprocessing,
) -> Iterator[str]:
    """What is doubtful: sizes that were fitted, and data unlike those that the rules are for."""
    weights = known.weights
    if weights and origins["patch_vox"] == _FITTED:
        yield (
            f"patches of the weights have {sizes_text(weights.patch_vox)} voxels, and no scan that "
            f"trains is so large: {sizes_text(value.patch_vox)} (datasets.patch_vox sets another size)"
        )
    yield from contrary_spacing(value, weights.spacing_mm if weights else None, cases)
    yield from _other_channels(value.channel_names, known.channel_names)
    if weights or origins["intensity"] != _HSF:
        yield from contrary_intensities(value, cases)


def _other_channels(ours: Sequence[str] | None, theirs: Sequence[str] | None) -> Iterator[str]:
    """Input channels that are not those of the weights by name."""
    if not theirs:
        return
    if ours is None and len(theirs) > 1:
        yield (
            f"channels of the weights are {', '.join(theirs)}, and those of the data are taken for "
            f"these, in the order of mri: 'datasets.channel_names=[{', '.join(theirs)}]' names them"
        )
    elif ours is not None and not set(ours) <= set(theirs):
        yield (
            f"channels of the weights are {', '.join(theirs)}, and those of the data "
            f"{', '.join(ours)}: finetuning.input_channels says which comes from which"
        )
