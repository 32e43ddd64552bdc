"""How scans are prepared for a network: the `preprocessing` group, and the value it leads to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from hsf_finetune.config.settings.base_settings import Group, Positive, Text, Whole


def _named_axes(orientation: str) -> str:
    if not re.fullmatch("[RL][AP][SI]", orientation):
        raise ValueError("give R or L, A or P, S or I, such as RAS or LPS")
    return orientation


Triple = tuple[Whole, Whole, Whole]
Spacing = tuple[Positive, Positive, Positive]
Overlap = Annotated[float, Field(ge=0, lt=1)]
Orientation = Annotated[str, AfterValidator(_named_axes)]
"""Where the axes x, y and z point, as nibabel's `aff2axcodes` says it."""
Mask = Literal["whole", "nonzero", "nonzero_filled"]
"""Voxels that count: all; those that are not 0; or those within the holes of these, in any
channel, too, as in nnU-Net. The others become 0."""
Resampling = Literal["linear", "plain", "nnunet", "monai", "monai_nearest"]
"""`linear`: trilinear, after smoothing along axes that become coarser; labels by the same of each
class. `plain`: without smoothing, labels by the nearest voxel, as version 0.1.0 did. `nnunet`:
third order, of anisotropic scans within slices alone (Isensee et al., 2021). `monai`: as its
`Spacing`, trilinear, between the centres of voxels; labels by the nearest. `monai_nearest`: the
same, and classes return by the nearest voxel, too."""
Crop = Literal["none", "margins", "nonzero", "positive"]
"""Which part of a scan the network sees: all; without outer planes of one value; or the box
of the voxels that are not 0, or above 0, in any channel."""
CropAfter = Literal["reading", "resampling", "intensity"]
"""Which image the box of a crop is of, and from when on it is all that is seen: the file's, the
resampled one, or the one whose intensities have been changed."""
FillValues = Literal["outside", "kept"]
"""Values that mark the outside of a scan are not counted and replaced, or are voxels as others."""
Padding = Literal["both", "symmetric", "end"]
"""Where a volume is padded: on both sides, as HSF does (torchio's `EnsureShapeMultiple`: the larger
half in front) or as MONAI and nnU-Net do (the larger half behind); or at its end, as version 0.1.0
did."""
PaddedSize = Literal["multiple", "window"]
"""What volumes are padded to: the next size that the network can halve, or at least a window, as
in nnU-Net's prediction."""
PaddingMode = Literal["zeros", "replicate", "reflect"]
"""What padding of images holds: 0, the nearest voxel, or the scan reflected at its last voxel."""
Blending = Literal["gaussian", "monai", "constant"]
"""How overlapping windows are weighted and placed: by a Gaussian, as nnU-Net; by a Gaussian that
is nearly 0 nowhere, or equally, both where MONAI's `sliding_window_inference` places windows."""

Sides = Literal["kept", "mirrored"]
"""Whether training saw scans as they are alone, or from left to right mirrored ones, too."""


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        found = f"{ends[0]:g} and then {ends[1]:g}"
        raise ValueError(f"give a lower number, and then a higher one, not {found}")
    return ends


def _voxel_size(given: object) -> object:
    if given is None or given == "data":
        return given
    numbers = list(given) if isinstance(given, list | tuple) else []
    if len(numbers) != 3 or not all(isinstance(n, int | float) and n > 0 for n in numbers):
        raise ValueError("give three sizes in mm, such as [1, 1, 1.2], or data")
    return given


def _with_kind(given: object) -> object:
    if isinstance(given, str):
        raise ValueError(f"write {{kind: {given}}}, with what belongs to it")
    return given


Ends = Annotated[tuple[float, float], AfterValidator(_rising)]


class UnchangedIntensity(Group):
    """Intensities as the files have them."""

    kind: Literal["none"] = "none"


class ZScoreIntensity(Group):
    """Mean 0 and standard deviation 1."""

    kind: Literal["zscore"] = "zscore"
    mask: Mask = "whole"
    clip: Ends | None = None
    """Intensities that are beyond these are set to them first."""
    mean: float | None = None
    """To subtract; None is that of each scan."""
    std: Positive | None = None
    """To divide by; None is that of each scan."""


class WindowIntensity(Group):
    """One interval for all scans, such as one of Hounsfield units."""

    kind: Literal["window"] = "window"
    low: float
    high: float
    to: Ends = (0.0, 1.0)
    """What its ends become."""
    clip: bool = True
    """Whether intensities beyond the interval are set to its ends."""

    @model_validator(mode="after")
    def _low_is_below_high(self) -> WindowIntensity:
        _rising((self.low, self.high))
        return self


class PercentileIntensity(Group):
    """The interval between two percentiles of each scan."""

    kind: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, le=100)] = 0.5
    high: Annotated[float, Field(ge=0, le=100)] = 99.5
    to: Ends = (0.0, 1.0)
    """What they become."""
    clip: bool = True
    """Whether intensities beyond them are set to them."""
    mask: Mask = "whole"

    @model_validator(mode="after")
    def _low_is_below_high(self) -> PercentileIntensity:
        _rising((self.low, self.high))
        return self


class MinMaxIntensity(Group):
    """The interval between the smallest and the largest intensity of each scan."""

    kind: Literal["minmax"] = "minmax"
    to: Ends = (0.0, 1.0)
    """What they become."""


OneStep = Annotated[
    UnchangedIntensity | ZScoreIntensity | WindowIntensity | PercentileIntensity | MinMaxIntensity,
    Field(discriminator="kind"),
]


class IntensitySteps(Group):
    """Several kinds, one after the other."""

    kind: Literal["steps"] = "steps"
    steps: Annotated[tuple[OneStep, ...], Field(min_length=1)]


Intensity = Annotated[
    UnchangedIntensity
    | ZScoreIntensity
    | WindowIntensity
    | PercentileIntensity
    | MinMaxIntensity
    | IntensitySteps,
    Field(discriminator="kind"),
]


def steps_of(intensity: Intensity) -> tuple[Intensity, ...]:
    """The kinds that follow each other; of any other kind itself."""
    return intensity.steps if isinstance(intensity, IntensitySteps) else (intensity,)


ORDERS: dict[str, tuple[CropAfter, bool]] = {
    "CSI": ("reading", False),
    "CIS": ("reading", True),
    "SCI": ("resampling", False),
    "SIC": ("intensity", False),
    "ICS": ("intensity", True),
    "ISC": ("resampling", True),
}
"""Order of C(rop), S(pacing) and I(ntensity) -> `crop_after` and `intensity_first`."""


class Preprocessing(Group):
    """How a network's inputs are made of scans, and how its outputs return to the scans' grid.

    It is the same in training, validation and prediction, and stands in the model card. What
    is not given is as in HSF.
    """

    orientation: Orientation = "RAS"
    """Of the network's axes."""
    spacing_mm: Spacing | None = None
    """Voxel size that scans are resampled to, along those axes; None keeps theirs."""
    resampling: Resampling = "linear"
    intensity: Annotated[tuple[Intensity, ...], Field(min_length=1)] = (ZScoreIntensity(),)
    """One for all channels, or one for each."""
    intensity_first: bool = False
    """Whether intensities are measured and changed before scans are resampled, or afterwards."""
    fill_values: FillValues = "outside"
    crop: Crop = "margins"
    crop_margin_vox: Annotated[int, Field(ge=0)] = 0
    """Voxels that are kept around the box of `crop`."""
    crop_after: CropAfter = "reading"
    padding: Padding = "both"
    padding_mode: PaddingMode = "zeros"
    padded_size: PaddedSize = "multiple"
    multiple_vox: Triple | None = None
    """Volumes are padded to multiples of this, too, in prediction; None is what the network needs."""
    least_vox: Triple | None = None
    """Volumes are padded to at least this in prediction."""
    patch_vox: Triple | None = None
    """Volumes larger than this were trained on in patches of this size; None is unknown."""
    window_vox: Triple = (128, 128, 128)
    """Volumes larger than this are predicted in overlapping windows of this size."""
    overlap: Overlap = 0.5
    """Share of a window that its neighbour also covers."""
    blending: Blending = "gaussian"
    sigma_share: Positive = 0.125
    """Standard deviation of the Gaussian, in lengths of the window."""
    channel_names: tuple[Text, ...] | None = None
    """Name of each input channel, if they have any."""
    sides: Sides | None = None
    """None is unknown."""

    @property
    def order(self) -> str:
        """The order of crop, spacing and intensity, by their first letters."""
        found = (self.crop_after, self.intensity_first)
        return next(order for order, parts in ORDERS.items() if parts == found)

    def intensity_of(self, channel: int) -> Intensity:
        """What is done to the intensities of a channel, counted from 0."""
        return self.intensity[channel if len(self.intensity) > 1 else 0]

    def to_dict(self) -> dict[str, Any]:
        """The value as plain types, as a model card holds it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Preprocessing:
        """The value that `to_dict` gave.

        Raises:
            ValueError: `plain` is none.
        """
        return cls.model_validate(plain)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Preprocessing:
        """The value in a model card; those of earlier versions hold only parts of it.

        Version 0.1.0 padded at the end, and did not leave out margins.

        Raises:
            ValueError: the card does not say how scans are prepared.
        """
        if "preprocessing" in card:
            return cls.from_dict(card["preprocessing"])
        if "window_vox" not in card:
            raise ValueError("the model card has no preprocessing")
        return cls(
            spacing_mm=card.get("target_spacing_mm"),
            resampling="plain",
            padding=card.get("padding", "end"),
            crop="margins" if card.get("crop_margins", False) else "none",
            window_vox=card["window_vox"],
            channel_names=card.get("channel_names"),
        )


HSF_PREPROCESSING = Preprocessing()
"""How HSF prepares scans."""


def _form(given: object) -> str:
    """How intensities are given: one for all channels, a list of them, or by channel name."""
    if isinstance(given, list | tuple):
        return "list"
    if isinstance(given, Mapping) and given and "kind" not in given:
        by_name = all(isinstance(value, Mapping | Group) for value in given.values())
        return "by_name" if by_name else "one"
    return "one"


Intensities = Annotated[
    Annotated[Intensity, Tag("one")]
    | Annotated[list[Intensity], Tag("list")]
    | Annotated[dict[Text, Intensity], Tag("by_name")],
    Discriminator(_form),
]


class PreprocessingSettings(Group):
    """How scans are prepared: a set of rules, and single parts beside it.

    A part that is null is as the rules say.
    """

    rules: Literal["hsf", "weights", "nnunet"] = "weights"
    """HSF's; those of the pretrained weights, or HSF's where they say nothing; or nnU-Net's, from
    the training cases."""
    missing: Literal["refuse", "accept"] = "refuse"
    """Whether weights are used whose preprocessing has steps that cannot be followed, without
    these."""
    orientation: Orientation | None = None
    """Of the network's axes, such as RAS."""
    spacing: Annotated[Literal["data"] | Spacing | None, BeforeValidator(_voxel_size)] = None
    """Voxel size in mm to resample to, along the network's axes; `data` keeps that of each scan."""
    resampling: Resampling | None = None
    """How: `linear`, `plain` (as version 0.1.0), `nnunet`, `monai` or `monai_nearest`."""
    intensity: Annotated[Intensities | None, BeforeValidator(_with_kind)] = None
    """What is done to intensities: for all channels, as a list, or by names of channels."""
    intensity_first: bool | None = None
    """Whether that is done before scans are resampled."""
    fill_values: FillValues | None = None
    """Whether values that mark the outside of a scan are found and left out."""
    crop: Crop | None = None
    """Which part of a scan the network sees."""
    crop_margin_vox: Annotated[int, Field(ge=0)] | None = None
    """Voxels that are kept around it."""
    crop_after: CropAfter | None = None
    """Which image that part is of: `reading`, `resampling` or `intensity`."""
    padding: Padding | None = None
    """Where volumes are padded: on `both` sides, as HSF, `symmetric`, as MONAI, or at the `end`."""
    padding_mode: PaddingMode | None = None
    """What padding of images holds: `zeros`, or voxels of the scan, by `replicate` or `reflect`."""
    padded_size: PaddedSize | None = None
    """What volumes are padded to in prediction: a `multiple`, or at least a `window`; training then
    pads to `patch_vox`."""
    overlap: Overlap | None = None
    """Share of a window that its neighbour also covers."""
    blending: Blending | None = None
    """How windows are weighted: `gaussian`, `monai` or `constant`."""
