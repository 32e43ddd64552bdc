"""What MONAI's transforms do to an image, by their names; none of them is imported or run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.weights.sources.bundle_config import ConfigObject, ObjectArguments

_WITHOUT_EFFECT = ("keys", "allow_missing_keys", "meta_keys", "meta_key_postfix", "lazy", "dtype")
_READING = "LoadImage"
_UNCHANGING = {
    *("AddChannel", "AsChannelFirst", "CopyItems", "DeleteItems", "EnsureChannelFirst"),
    *("FromMetaTensor", "Identity", "SelectItems", "ToDevice", "ToMetaTensor", "ToTensor"),
}
"""Transforms that leave the voxels of an image as they are."""
_LABELS = {"label", "labels", "seg", "mask", "pred", "segmentation"}
"""Usual names of what is no image."""
_FLOATS = ("float", "float32", "float64", "double")
_MODES = {
    **dict.fromkeys(("constant", "zeros"), "zeros"),
    **dict.fromkeys(("edge", "replicate", "border"), "replicate"),
    "reflect": "reflect",
}
"""Names of what padding holds, of MONAI, numpy and torch -> ours."""


@dataclass
class ImageSteps:
    """What the transforms read so far do to an image.

    Args:
        channels: name of an image in MONAI's dictionaries -> the steps of each of its channels.
        in_channels: those of the network; None if unknown.
        order: letters of the steps: O(rientation), S(pacing), C(rop), I(ntensity), P(adding).
        parts: parts of the preprocessing.
    """

    channels: dict[str, list[list[Intensity]]] = field(default_factory=dict)
    in_channels: int | None = None
    order: str = ""
    parts: dict[str, Any] = field(default_factory=dict)


class TransformArguments(ObjectArguments):
    """The arguments of a transform, and the images that it changes."""

    def __init__(self, step: ConfigObject, found: ImageSteps) -> None:
        super().__init__(step, _WITHOUT_EFFECT)
        self.found = found
        # Transforms of arrays have no keys: they have one image.
        keys = self.take("keys") if "keys" in step.arguments else "image"
        self.keys: list[str] = [keys] if isinstance(keys, str) else list(keys)
        self.images = [key for key in self.keys if key.casefold() not in _LABELS]
        for key in self.images:
            found.channels.setdefault(key, [[]])

    def of_image(self, name: str, default: Any) -> Any:
        """An argument that may have one value for each key; that of the first image."""
        value = self.take(name, default)
        if isinstance(value, list) and len(value) in (1, len(self.keys)) and self.images:
            value = value[self.keys.index(self.images[0]) if len(value) > 1 else 0]
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        """Three numbers, or one for all axes."""
        value = self.take(name)
        numbers = three_numbers(value)
        if numbers is None:
            raise self.error(name, value, "one or three numbers above 0")
        return numbers

    def add(self, *intensities: Intensity) -> None:
        """Adds a step to the channels of the images: one for all, or one for each."""
        for key in self.images:
            chains = self.found.channels[key]
            if len(intensities) > 1 and len(chains) == 1:
                chains = self.found.channels[key] = [list(chains[0]) for _ in intensities]
            if len(intensities) not in (1, len(chains)):
                raise self.error("channels", len(intensities), f"{len(chains)}, one for each")
            for number, chain in enumerate(chains):
                chain.append(intensities[number % len(intensities)])
        self.found.order += "I"

    def require_all(self) -> None:
        """Refuses changes of the grid of some images and not of others."""
        if set(self.images) != self.found.channels.keys():
            raise self.error("keys", self.keys, f"all images: {', '.join(self.found.channels)}")

    def require_channel_wise(self) -> None:
        """Refuses statistics of several channels together."""
        counts = [len(self.found.channels[key]) for key in self.images]
        if len(self.found.channels) == 1:
            counts.append(self.found.in_channels or 1)
        if not self.take("channel_wise", False) and max(counts) > 1:
            raise self.error("channel_wise", False, "true: each channel has its own statistics")


def three_numbers(value: object) -> tuple[float, ...] | None:
    """Three numbers above 0, or one for all axes; None for anything else."""
    given: list[Any] = value if isinstance(value, list) else [value] * 3
    plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) and n > 0 for n in given)
    return tuple(given) if plain and len(given) == 3 else None


def short_name(target: str) -> str:
    """A transform's class without its module and the sign of dictionaries: `Spacing`."""
    name = target.rpartition(".")[2]
    shorter = [name.removesuffix(ending) for ending in ("", "d", "D", "Dict")]
    known = {_READING, *_UNCHANGING, *_READERS}
    return next((one for one in shorter if one in known), name.removesuffix("d"))


def read_step(step: ConfigObject, found: ImageSteps) -> bool:
    """Adds what a transform does to what is known of the images.

    Returns:
        Whether the transform is known.

    Raises:
        ArgumentError: an argument is not supported.
        ValueError: numbers that are none of an intensity's.
    """
    name = short_name(step.target)
    is_own_code = step.target.rpartition(".")[0].partition(".")[0] not in ("", "monai")
    if name in _UNCHANGING and not is_own_code:
        return True
    given = TransformArguments(step, found)
    if not given.images or (name == _READING and not is_own_code):
        return True
    if name not in _READERS or is_own_code:
        return False
    _READERS[name](given)
    for unknown in sorted(given.unused):
        raise given.error(unknown, step.arguments[unknown], "no such argument")
    return True


# -------------------------------------------------------------------- internals
def _cast(given: TransformArguments) -> None:
    dtype = given.description.arguments.get("dtype") or "float32"
    if isinstance(dtype, list) and given.images:
        dtype = dtype[min(given.keys.index(given.images[0]), len(dtype) - 1)]
    dtype = str(dtype)
    if dtype.lstrip("$").rpartition(".")[2] not in _FLOATS:
        raise given.error("dtype", dtype, "a floating-point type")
    given.unused.clear()


def _orient(given: TransformArguments) -> None:
    given.require_all()
    codes = given.take("axcodes", None)
    if given.take("as_closest_canonical", False):
        codes = "RAS"
    given.take("labels", None)
    codes = "".join(codes).upper() if isinstance(codes, (str, list)) else ""
    axes = [next((n for n, pair in enumerate(("RL", "AP", "SI")) if c in pair), -1) for c in codes]
    if axes != [0, 1, 2]:
        expected = "R or L, then A or P, then S or I"
        raise given.error("axcodes", codes, expected)
    given.found.parts["orientation"] = codes
    given.found.order += "O"


def _space(given: TransformArguments) -> None:
    given.require_all()
    mode = given.of_image("mode", "bilinear")
    if str(mode).casefold().rpartition(".")[2] not in ("bilinear", "1"):
        raise given.error("mode", mode, "bilinear")
    if given.of_image("padding_mode", "border") != "border":
        raise given.error("padding_mode", given.take("padding_mode"), "border")
    for name in ("diagonal", "scale_extent"):
        if given.of_image(name, False):
            raise given.error(name, True, "false")
    given.require(min_pixdim=None, max_pixdim=None)
    # These change no voxel of the image.
    for name in ("align_corners", "recompute_affine", "ensure_same_shape"):
        given.take(name, None)
    given.found.parts["spacing_mm"] = given.numbers("pixdim")
    given.found.order += "S"


def _window(given: TransformArguments) -> None:
    low, high = given.take("a_min"), given.take("a_max")
    given.add(WindowIntensity(low=low, high=high, **_to(given, "b_min", "b_max")))


def _percentiles(given: TransformArguments) -> None:
    given.require_channel_wise()
    low, high = given.take("lower"), given.take("upper")
    to = _to(given, "b_min", "b_max")
    if given.take("relative", False):
        a, b = to["to"]
        to["to"] = ((b - a) * low / 100 + a, (b - a) * high / 100 + a)
    given.add(PercentileIntensity(low=low, high=high, **to))


def _to(given: TransformArguments, low: str, high: str) -> dict[str, Any]:
    """What an interval becomes; MONAI's default is 0 to 1, without clipping."""
    ends = given.take(low, None), given.take(high, None)
    clip = bool(given.take("clip", False))
    if None in ends:
        if clip:
            raise given.error(low, None, "both ends, where intensities are clipped")
        return {"to": (0.0, 1.0), "clip": False}
    return {"to": ends, "clip": clip}


def _scale(given: TransformArguments) -> None:
    low, high, factor = given.take("minv", 0.0), given.take("maxv", 1.0), given.take("factor", None)
    if low is None and high is None:
        given.take("channel_wise", False)
        given.add(WindowIntensity(low=0, high=1, to=(0, 1 + (factor or 0)), clip=False))
        return
    given.require_channel_wise()
    given.add(MinMaxIntensity(to=(0.0, 1.0) if None in (low, high) else (low, high)))


def _normalise(given: TransformArguments) -> None:
    mask = "nonzero" if given.take("nonzero", False) else "whole"
    numbers = given.take("subtrahend", None), given.take("divisor", None)
    if None in numbers:
        given.require_channel_wise()
    given.take("channel_wise", False)
    count = max([len(one) for one in numbers if isinstance(one, list)], default=1)
    means, stds = (one if isinstance(one, list) else [one] * count for one in numbers)
    pairs = zip(means, stds, strict=True)
    given.add(
        *(ZScoreIntensity.model_validate({"mask": mask, "mean": m, "std": s}) for m, s in pairs)
    )


def _crop(given: TransformArguments) -> None:
    chosen = "".join(str(given.description.arguments.get("select_fn", "x > 0")).split())
    given.unused.discard("select_fn")
    kinds = {"x>0": "positive", "x>0.0": "positive", "x!=0": "nonzero", "x!=0.0": "nonzero"}
    kind = kinds.get(chosen.rpartition("lambdax:")[2])
    if chosen.endswith("is_positive"):
        kind = "positive"
    if kind is None:
        raise given.error("select_fn", chosen, "x > 0 or x != 0")
    source = given.take("source_key", given.images[0])
    if source not in given.images or len(given.found.channels) > 1:
        raise given.error("source_key", source, "the image, if it is the only one")
    given.require(channel_indices=None)
    margin, divisible = given.take("margin", 0), given.take("k_divisible", 1)
    if divisible not in (1, [1, 1, 1]):
        raise given.error("k_divisible", divisible, "1")
    if not isinstance(margin, int) or isinstance(margin, bool):
        raise given.error("margin", margin, "one number")
    if not given.take("allow_smaller", False) and margin:
        raise given.error("margin", margin, "0, or allow_smaller: true, so that nothing is padded")
    for name in ("mode", "start_coord_key", "end_coord_key", "return_coords"):
        given.take(name, None)
    given.found.parts |= {"crop": kind, "crop_margin_vox": margin}
    given.found.order += "C"


def _pad(given: TransformArguments, name: str, part: str) -> None:
    given.require_all()
    mode = str(given.of_image("mode", "constant")).casefold().rpartition(".")[2]
    method = str(given.of_image("method", "symmetric")).casefold().rpartition(".")[2]
    if mode not in _MODES:
        raise given.error("mode", mode, ", ".join(_MODES))
    if method not in ("symmetric", "end"):
        raise given.error("method", method, "symmetric or end")
    given.require(value=0, constant_values=0)
    padding = {"padding_mode": _MODES[mode], "padding": method}
    known = {key: given.found.parts.get(key, value) for key, value in padding.items()}
    if known != padding:
        raise given.error("mode, method", [mode, method], "as of the padding before")
    given.found.parts |= {**padding, part: given.numbers(name)}
    given.found.order += "P"


def _join(given: TransformArguments) -> None:
    name = given.take("name")
    given.require(dim=0)
    joined = [chain for key in given.keys for chain in given.found.channels[key]]
    for key in given.keys:
        given.found.channels.pop(key, None)
    given.found.channels[str(name)] = joined


_READERS: Mapping[str, Callable[[TransformArguments], None]] = {
    "CastToType": _cast,
    "ConcatItems": _join,
    "CropForeground": _crop,
    "EnsureType": _cast,
    "DivisiblePad": lambda given: _pad(given, "k", "multiple_vox"),
    "NormalizeIntensity": _normalise,
    "Orientation": _orient,
    "ScaleIntensity": _scale,
    "ScaleIntensityRange": _window,
    "ScaleIntensityRangePercentiles": _percentiles,
    "Spacing": _space,
    "SpatialPad": lambda given: _pad(given, "spatial_size", "least_vox"),
}


def padding_mode(name: object) -> str | None:
    """What padding holds, of a name of MONAI's; None if it is not supported."""
    return _MODES.get(str(name).casefold().rpartition(".")[2])
