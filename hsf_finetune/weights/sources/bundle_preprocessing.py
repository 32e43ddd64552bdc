"""How a MONAI bundle says that images are prepared, as one value; nothing in it is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hsf_finetune.config.settings.preprocessing_settings import (
    ORDERS,
    Intensity,
    IntensitySteps,
    Preprocessing,
    UnchangedIntensity,
)
from hsf_finetune.weights.sources.bundle_config import (
    ArgumentError,
    ComputedValueError,
    ConfigObject,
    ObjectArguments,
    find_objects,
)
from hsf_finetune.weights.sources.bundle_steps import (
    ImageSteps,
    padding_mode,
    read_step,
    short_name,
    three_numbers,
)

_SCOPES: tuple[tuple[str, ...], ...] = ((), ("validate",), ("evaluator",), ("validation",))
"""Where entries of inference and of training configurations lie."""
_TRANSFORMS = (("dataset", "transform"), ("preprocessing",), ("preprocessing_transforms",))
_NAMES = {
    "O": "Orientation",
    "S": "Spacing",
    "C": "CropForeground",
    "I": "intensities",
    "P": "padding",
}
_REFUSED_ORDERS = {
    "S.*O": "Orientation comes before Spacing, whose numbers are of the file's axes",
    "P+[^P]": "padding comes last",
    "O.*O|S.*S|C.*C": "Orientation, Spacing and CropForeground come once",
    "I[SC]+I": "intensities are changed before Spacing or CropForeground, or after",
}
_WHOLE = (1024, 1024, 1024)
"""Windows of a network that takes scans in one piece."""
_INFERERS = {
    "SimpleInferer": (),
    "SlidingWindowInferer": (
        *("sw_batch_size", "device", "sw_device", "progress", "cache_roi_weight_map"),
        *("cpu_thresh", "buffer_steps", "buffer_dim", "with_coord"),
    ),
}
"""Ways to apply a network -> arguments that do not change what it says."""
_RETURNING = {
    *("Activations", "AsDiscrete", "Invert", "SaveImage"),
    *("CastToType", "EnsureType", "ToDevice", "ToTensor"),
}
"""Steps after the network that this package repeats."""


@dataclass(frozen=True)
class BundlePreprocessing:
    """How a bundle prepares images."""

    value: Preprocessing | None = None
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    independent: bool = False
    """Whether each output is a yes or no by itself (sigmoid)."""


def read_bundle_preprocessing(
    config: Mapping[str, Any], path: Path, in_channels: int | None, orientation: str = "RAS"
) -> BundlePreprocessing:
    """How a bundle's configuration prepares images, applies the network and returns its classes."""
    found = ImageSteps(in_channels=in_channels)
    unread: list[str] = []
    steps = _read(unread, config, path, *_TRANSFORMS)
    for step in steps:
        try:
            if not read_step(step, found):
                unread.append(_described(step))
        except ArgumentError as error:
            unread.append(f"{error.why.found} ({error.why.expected})")
        except (ValueError, TypeError) as error:
            unread.append(f"{step.key}: {_reason(error)}")
    inferers = _read(unread, config, path, ("inferer",))
    if not steps and not inferers:
        return BundlePreprocessing(None, tuple(unread))
    parts = {
        "orientation": orientation,
        "resampling": "monai",
        "intensity": _intensities(found, unread),
        "fill_values": "kept",
        "crop": "none",
        "padding": "symmetric",
        "window_vox": _WHOLE,
        **found.parts,
        **_order(found.order, unread),
    }
    for inferer in inferers:
        parts |= _windows(inferer, parts, unread)
    notes = []
    if steps and "orientation" not in found.parts:
        notes.append(
            "its configuration leaves images as they are stored: its training images are taken to "
            f"have been stored as {orientation} (finetuning.source_orientation=LPS says otherwise)"
        )
    after = _read(unread, config, path, ("postprocessing",))
    if _returns_nearest(after):
        parts["resampling"] = "monai_nearest"
    independent = any(map(_is_yes_or_no, after))
    notes += _notes_of_output(after, parts, independent)
    value = Preprocessing.model_validate(parts)
    return BundlePreprocessing(value, tuple(unread), tuple(notes), independent)


# -------------------------------------------------------------------- internals
def _read(
    unread: list[str], config: Mapping[str, Any], path: Path, *places: tuple[str, ...]
) -> list[ConfigObject]:
    """The objects of the first of some entries that has any."""
    for scope in _SCOPES:
        for place in places:
            try:
                if found := [*find_objects(config, path, *scope, *place)]:
                    return found
            except ComputedValueError as error:
                unread.append(str(error.found))
                return []
    return []


def _reason(error: Exception) -> str:
    """Why numbers are none of a preprocessing, in a line."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)


def _described(step: ConfigObject) -> str:
    """A transform that is not known, with the function it applies, if it has one."""
    function = step.arguments.get("func")
    return step.target + (f" ({function})"[:200] if isinstance(function, str) else "")


def _intensities(found: ImageSteps, unread: list[str]) -> list[Intensity]:
    """What is done to the intensities of each channel, or of all."""
    names = [*found.channels]
    if "image" not in names and len(names) > 1:
        unread.append(f"several images, {', '.join(names)}, that are not joined by ConcatItemsd")
    chains = found.channels.get("image", found.channels[names[0]] if names else [[]])
    kinds: list[Intensity] = [
        chain[0]
        if len(chain) == 1
        else IntensitySteps.model_validate({"steps": chain})
        if chain
        else UnchangedIntensity()
        for chain in chains
    ]
    return kinds[:1] if len(set(kinds)) == 1 else kinds


def _order(letters: str, unread: list[str]) -> dict[str, Any]:
    """Which parts come first."""
    order = letters.replace("O", "")
    for pattern, expected in _REFUSED_ORDERS.items():
        if re.search(pattern, letters) or re.search(pattern, order):
            shown = ", ".join(_NAMES[letter] for letter in letters)
            unread.append(f"the order of steps: {shown} ({expected})")
    kept = "".join(dict.fromkeys(order.replace("P", "")))
    # The first order in which these letters have the same sequence.
    fitting = (value for one, value in ORDERS.items() if [c for c in one if c in kept] == [*kept])
    after, first = next(fitting)
    return {"crop_after": after, "intensity_first": first}


def _windows(inferer: ConfigObject, known: Mapping[str, Any], unread: list[str]) -> dict[str, Any]:
    """How the network is applied to scans."""
    name = inferer.target.removeprefix("monai.inferers.").removeprefix("inferer.")
    if name not in _INFERERS:
        unread.append(_described(inferer))
        return {}
    given = ObjectArguments(inferer, _INFERERS[name])
    if name == "SimpleInferer":
        return {}
    try:
        size, overlap = three_numbers(given.take("roi_size")), given.take("overlap", 0.25)
        if size is None:
            raise given.error("roi_size", inferer.arguments["roi_size"], "numbers above 0")
        if isinstance(overlap, list) and len(set(overlap)) == 1:
            overlap = overlap[0]
        blending = str(given.take("mode", "constant")).casefold()
        sigma, mode = given.take("sigma_scale", 0.125), given.take("padding_mode", "constant")
        if isinstance(sigma, list) and len(set(sigma)) == 1:
            sigma = sigma[0]
        given.require(cval=0)
        padding = {"padding": "symmetric", "padding_mode": padding_mode(mode)}
        least = known.get("least_vox", (0, 0, 0))
        fits = all(n >= m for n, m in zip(least, size, strict=True))
        before = {key: known.get(key, value) for key, value in padding.items()}
        if padding["padding_mode"] is None or (before != padding and not fits):
            raise given.error("padding_mode", mode, "as of the padding before")
        for argument in sorted(given.unused):
            raise given.error(argument, inferer.arguments[argument], "no such argument")
    except ArgumentError as error:
        unread.append(f"{error.why.found} ({error.why.expected})")
        return {}
    found = {
        "padded_size": "window",
        "patch_vox": size,
        "window_vox": size,
        "overlap": overlap,
        "blending": "constant" if blending == "constant" else "monai",
        "sigma_share": sigma,
    }
    try:
        Preprocessing.model_validate(found)
    except ValueError as error:
        unread.append(f"{inferer.key}: {_reason(error)}")
        return {}
    return found | (before if fits else padding)


def _returns_nearest(after: list[ConfigObject]) -> bool:
    """Whether classes return to the scan's grid by the nearest voxel, which is MONAI's default."""
    inverting = [step for step in after if short_name(step.target) == "Invert"]
    return bool(after) and all(
        step.arguments.get("nearest_interp", True) is True for step in inverting
    )


def _is_yes_or_no(step: ConfigObject) -> bool:
    """Whether a step decides on each output by itself: a sigmoid, or a threshold alone."""
    given = {}
    for name in ("sigmoid", "threshold", "argmax") & step.arguments.keys():
        with suppress(ComputedValueError):
            value = step.argument(name)
            given[name] = value[0] if isinstance(value, list) and value else value
    threshold = given.get("threshold") not in (None, False)
    return given.get("sigmoid") is True or (threshold and given.get("argmax") is not True)


def _notes_of_output(
    after: list[ConfigObject], parts: Mapping[str, Any], independent: bool
) -> Iterator[str]:
    """What happens to a network's output that this package does not repeat."""
    names = [short_name(step.target) for step in after]
    if independent:
        yield (
            "its outputs are yes or no each by itself (sigmoid), while classes in this package "
            "exclude each other: they are transferred by name, and predictions differ where they "
            "overlap"
        )
    discrete = [n for n, step in enumerate(after) if step.arguments.get("argmax") is True]
    numbers_return = "Invert" in names and discrete and discrete[0] < names.index("Invert")
    if numbers_return and parts["resampling"] == "monai" and parts.get("spacing_mm"):
        yield (
            "it interpolates numbers of classes on their way back to the scan's grid, which gives "
            "numbers of other classes between them; this package interpolates scores"
        )
    odd = [step.key for step, name in zip(after, names, strict=True) if name not in _RETURNING]
    if odd:
        yield (
            f"after the network it applies {', '.join(dict.fromkeys(odd))}, which this package "
            "does not"
        )
