"""Reads the plans of an nnU-Net: which network, and which images it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.nnunet_preprocessing import (
    read_preprocessing,
    unusual_resampling,
)

_KINDS = ("PlainConvUNet", "ResidualEncoderUNet")
_LAYERS = ("conv_op", "norm_op", "dropout_op", "nonlin")
"""Arguments that name a class of torch, of which only the last part is read."""
_REORIENTING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
"""Readers that turn every image to RAS+ before anything else."""
_AXES = ("RL", "AP", "SI")
_FLAT = "a 2D network segments slice by slice, which is not supported"
_USE_3D = "use the 3d_fullres or 3d_lowres model"


@dataclass(frozen=True)
class NnUNetPlans:
    """One configuration of nnU-Net's plans, in axes X, Y, Z of RAS+.

    Args:
        models: the network, as the plain form of `NnUNetSettings`, or `PrimusSettings` for nnssl's.
        preprocessing: how images are prepared for it.
        normalisation: nnU-Net's names of what is done to intensities, per input channel.
        origin: what else is known of the training images, as plain values.
        notes: what a user should know of them, in words.
    """

    models: Mapping[str, Any]
    preprocessing: Preprocessing
    normalisation: tuple[str, ...]
    origin: Mapping[str, Any]
    notes: tuple[str, ...]


def read_plans(
    plans: Mapping[str, Any],
    configuration: str,
    orientation: str,
    path: Path,
    program: str = "nnU-Net",
) -> NnUNetPlans:
    """Reads one configuration, in the present form of plans or the one before (2.0 to 2.3).

    An array axis i of nnU-Net is axis 2 - transpose_forward[i] of the file: its readers
    give (z, y, x), which it then transposes.

    Args:
        plans: the content of plans.json.
        configuration: such as `3d_fullres`.
        orientation: where the voxel axes of the training images point; not used where
            nnU-Net's reader reorients.
        path: the file they come from, for messages.
        program: that wrote them.

    Raises:
        WeightsError: it cannot be read, or describes what is not supported.
    """
    chosen = _resolve_configuration(plans, configuration, path)
    if chosen.get("previous_stage") is not None:
        raise WeightsError(
            "a cascade's second model takes another model's segmentation as input, which is not supported",
            file=path,
            found=f"configuration {configuration} after {chosen['previous_stage']}",
            fix=_USE_3D,
        )
    reader = str(plans.get("image_reader_writer"))
    stored = "RAS" if reader in _REORIENTING else _check_orientation(orientation)
    try:
        models = _models(chosen, path)
        array_axes = "".join(stored[2 - axis] for axis in _transpose(plans))
        if models is None or len(chosen["patch_size"]) != 3:
            raise WeightsError(
                _FLAT, file=path, found=f"configuration {configuration}", fix=_USE_3D
            )
        axes = [next(i for i, end in enumerate(array_axes) if end in pair) for pair in _AXES]
        models = _validated(models | {"orientation": array_axes}, path)
        how = read_preprocessing(plans, chosen, axes, path)
        schemes = tuple(map(str, chosen["normalization_schemes"]))
        origin = {
            "dataset": str(plans.get("dataset_name")),
            "target_spacing_mm": list(how.spacing_mm or ()),
            "patch_vox": list(how.patch_vox or ()),
            "normalisation": list(schemes),
            "stored": stored,
        }
        notes = _notes(program, None if reader in _REORIENTING else stored, chosen)
        return NnUNetPlans(models, how, schemes, origin, tuple(notes))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise WeightsError(
            "nnU-Net's plans cannot be read",
            file=path,
            found=f"{type(error).__name__}: {error}",
            expected="plans.json as nnunetv2 writes it",
        ) from error


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        WeightsError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError("nnU-Net's file cannot be read", file=path, found=error) from error
    if not isinstance(value, dict):
        raise WeightsError("nnU-Net's file holds no object", file=path, found=type(value).__name__)
    return value


# ------------------------------------------------------------------------------ internals
def _transpose(plans: Mapping[str, Any]) -> list[int]:
    transpose = [int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))]
    if sorted(transpose) != [0, 1, 2]:
        raise ValueError(f"transpose_forward is {transpose}")
    return transpose


def _notes(program: str, assumed: str | None, chosen: Mapping[str, Any]) -> Iterator[str]:
    """What a user should know of the training images."""
    if assumed is None:
        yield f"{program}'s reader turned all images to RAS, as this package does"
    else:
        yield (
            f"its training images are assumed to be stored as {assumed}, since "
            f"{program} keeps a file's axes and does not record them"
        )
    if resampling := unusual_resampling(chosen):
        yield (
            f"{program} resampled images by {resampling}, and this package does by "
            "nnU-Net's usual way (preprocessing.resampling=linear is another one)"
        )


def _resolve_configuration(plans: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A configuration with what it inherits."""
    known = plans.get("configurations")
    chain: list[dict[str, Any]] = []
    wanted: Any = name
    while wanted is not None:
        if not isinstance(known, Mapping) or not isinstance(known.get(wanted), Mapping):
            raise WeightsError(
                f"nnU-Net's plans have no configuration '{wanted}'",
                file=path,
                expected=", ".join(known) if isinstance(known, Mapping) else "configurations",
                fix="the results folder is named TRAINER__PLANS__CONFIGURATION",
            )
        if len(chain) > len(known):
            raise WeightsError(f"'{name}' of nnU-Net's plans inherits from itself", file=path)
        chain.append(dict(known[wanted]))
        wanted = chain[-1].get("inherits_from")
    return {key: value for link in reversed(chain) for key, value in link.items()}


def _models(chosen: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The network as plain settings, but for its orientation; None for a 2D one."""
    if "architecture" not in chosen:
        return _models_before_2_4(chosen, path)
    kind = str(chosen["architecture"]["network_class_name"]).rpartition(".")[2]
    given = dict(chosen["architecture"]["arch_kwargs"])
    if kind == "Primus":
        return {"name": "primus", **given}
    if kind not in _KINDS:
        raise _unknown_network_error(path, kind)
    stages = given.pop("n_stages", None)
    for key in _LAYERS:
        if given.get(key) is not None:
            given[key] = str(given[key]).rpartition(".")[2]
    if given.pop("conv_op", "Conv3d") != "Conv3d":
        return None
    given = {key: value for key, value in given.items() if value is not None or key in _LAYERS}
    block = str(given.pop("block", "BasicBlockD")).rpartition(".")[2]
    if block != "BasicBlockD" or "bottleneck_channels" in given:
        raise _unknown_network_error(path, f"{kind} of bottleneck blocks")
    if kind == "PlainConvUNet":
        given["n_blocks_per_stage"] = given.pop("n_conv_per_stage", None)
    for key in ("features_per_stage", "kernel_sizes", "strides"):
        if isinstance(given.get(key), int):
            given[key] = [given[key]] * int(stages or 0)
    # Where plans are silent, nnU-Net's library uses its own defaults, not those of our settings.
    defaults: dict[str, Any] = {
        "norm_op": None,
        "norm_op_kwargs": {},
        "nonlin_kwargs": {},
        "conv_bias": False,
    }
    # Without the coarser stages' convolutions to logits: fine-tuning trains the finest.
    return {"name": "nnunet", "architecture": kind, **defaults, **given, "deep_supervision": False}


def _models_before_2_4(chosen: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The network of plans by nnunetv2 2.0 to 2.3, which used other names for its parts."""
    kind = str(chosen.get("UNet_class_name"))
    if kind not in _KINDS:
        raise _unknown_network_error(path, kind)
    stages = len(chosen["n_conv_per_stage_encoder"])
    base, most = int(chosen["UNet_base_num_features"]), int(chosen["unet_max_num_features"])
    if len(chosen["patch_size"]) != 3:
        return None
    return {
        "name": "nnunet",
        "architecture": kind,
        "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
        "kernel_sizes": chosen["conv_kernel_sizes"],
        "strides": chosen["pool_op_kernel_sizes"],
        "n_blocks_per_stage": chosen["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": chosen["n_conv_per_stage_decoder"],
        "deep_supervision": False,
    }


def _validated(models: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        settings = validate_network(models)
    except ValidationError as error:
        raise WeightsError(
            "nnU-Net's plans describe a network that this package cannot build",
            file=path,
            found="\n".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors()),
        ) from error
    return settings.model_dump(mode="json", include=set(models))


def _check_orientation(orientation: str) -> str:
    letters = orientation.upper()
    if len(letters) != 3 or any(sum(x in pair for x in letters) != 1 for pair in _AXES):
        raise WeightsError(
            f"'{orientation}' is not the orientation of three axes",
            expected="one of R and L, one of A and P, one of S and I, such as RAS or LPI",
            fix="nibabel.aff2axcodes(nibabel.load(FILE).affine) gives it",
        )
    return letters


def _unknown_network_error(path: Path, kind: str) -> WeightsError:
    return WeightsError(
        "nnU-Net's plans name a network that is not supported",
        file=path,
        found=kind,
        expected=" or ".join(_KINDS),
    )
