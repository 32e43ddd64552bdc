"""What nnU-Net's plans say: which network, and which images it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hsf_finetune.config.settings import NnUNetSettings
from hsf_finetune.system.errors import WeightsError

_KINDS = ("PlainConvUNet", "ResidualEncoderUNet")
_LAYERS = ("conv_op", "norm_op", "dropout_op", "nonlin")
"""Arguments that name a class of torch, of which only the last part is read."""
_REORIENTING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
"""Readers that turn every image to RAS+ before anything else."""
_AXES = ("RL", "AP", "SI")


@dataclass(frozen=True)
class Plans:
    """One configuration of nnU-Net's plans, in our axes (X, Y, Z of RAS+).

    Args:
        dataset: its name.
        models: the network, as the plain form of `NnUNetSettings`.
        spacing_mm: voxel size that images are resampled to.
        patch_vox: size of the training patches.
        normalisation: of the intensities, per input channel.
        stored: where the voxel axes of the training images point.
        assumed: whether that is the caller's word, and not the plans'.
    """

    dataset: str
    models: Mapping[str, Any]
    spacing_mm: tuple[float, ...]
    patch_vox: tuple[int, ...]
    normalisation: tuple[str, ...]
    stored: str
    assumed: bool

    @property
    def normalised(self) -> str:
        """How intensities were normalised there, and are here, in words."""
        return (
            f"nnU-Net normalised intensities by {', '.join(self.normalisation)}; here, each image "
            "is brought to mean 0 and standard deviation 1"
        )

    @property
    def resampled(self) -> str:
        """Which voxel size the weights know, in words."""
        size = ",".join(f"{mm:.4g}" for mm in self.spacing_mm)
        return f"nnU-Net resampled images to datasets.target_spacing_mm=[{size}]"

    @property
    def turned(self) -> str:
        """Which orientation the weights are taken for, in words."""
        if not self.assumed:
            return "nnU-Net's reader turned all images to RAS, as is done here"
        return (
            f"its training images are taken to be stored as {self.stored}, since nnU-Net keeps a "
            "file's own axes and does not record them"
        )


def read_plans(path: Path, configuration: str, stored: str) -> Plans:
    """Reads one configuration, in the present form of plans or the one before (2.0 to 2.3).

    An array axis i of nnU-Net is axis 2 - transpose_forward[i] of the file: its readers
    give (z, y, x), which it then transposes.

    Args:
        path: plans.json.
        configuration: such as `3d_fullres`.
        stored: where the voxel axes of the training images point; not asked for where
            nnU-Net's reader reorients.

    Raises:
        WeightsError: it cannot be read, or describes what cannot be taken over.
    """
    plans = json_object(path)
    own = _resolved(plans, configuration, path)
    if own.get("previous_stage") is not None:
        raise WeightsError(
            "a cascade's second model takes another model's segmentation as input channels",
            file=path,
            found=f"configuration {configuration} after {own['previous_stage']}",
            fix="take the 3d_fullres or 3d_lowres model",
        )
    reader = str(plans.get("image_reader_writer"))
    seen = "RAS" if reader in _REORIENTING else _checked(stored)
    models = _models(own, path)
    try:
        transpose = [int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))]
        if sorted(transpose) != [0, 1, 2]:
            raise ValueError(f"transpose_forward is {transpose}")
        orientation = "".join(seen[2 - axis] for axis in transpose)
        if models is None or len(own["patch_size"]) != 3:
            raise _flat(path, configuration)
        of_ours = [_axis_of(orientation, pair) for pair in _AXES]
        spacing, patch = own["spacing"], own["patch_size"]
        schemes = own.get("normalization_schemes", ())
        return Plans(
            dataset=str(plans.get("dataset_name")),
            models=_validated(models | {"orientation": orientation}, path),
            spacing_mm=tuple(float(spacing[axis]) for axis in of_ours),
            patch_vox=tuple(int(patch[axis]) for axis in of_ours),
            normalisation=tuple(str(scheme) for scheme in schemes),
            stored=seen,
            assumed=reader not in _REORIENTING,
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise _odd(path, error) from error


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
def _resolved(plans: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
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
    return {key: value for own in reversed(chain) for key, value in own.items()}


def _models(own: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The network as plain settings, but for its orientation; None for a 2D one."""
    if "architecture" not in own:
        return _older(own, path)
    try:
        kind = str(own["architecture"]["network_class_name"]).rpartition(".")[2]
        given = dict(own["architecture"]["arch_kwargs"])
    except (KeyError, TypeError, ValueError) as error:
        raise _odd(path, error) from error
    if kind not in _KINDS:
        raise _other_network(path, kind)
    stages = given.pop("n_stages", None)
    for key in _LAYERS:
        if given.get(key) is not None:
            given[key] = str(given[key]).rpartition(".")[2]
    if given.pop("conv_op", "Conv3d") != "Conv3d":
        return None
    given = {key: value for key, value in given.items() if value is not None or key in _LAYERS}
    block = str(given.pop("block", "BasicBlockD")).rpartition(".")[2]
    if block != "BasicBlockD" or "bottleneck_channels" in given:
        raise _other_network(path, f"{kind} of bottleneck blocks")
    if kind == "PlainConvUNet":
        given["n_blocks_per_stage"] = given.pop("n_conv_per_stage", None)
    for key in ("features_per_stage", "kernel_sizes", "strides"):
        if isinstance(given.get(key), int):
            given[key] = [given[key]] * int(stages or 0)
    # What plans leave out is what the library's own defaults are, not those of a new network.
    silent: dict[str, Any] = {
        "norm_op": None,
        "norm_op_kwargs": {},
        "nonlin_kwargs": {},
        "conv_bias": False,
    }
    # The coarser stages' convolutions to logits are left out: fine-tuning trains the finest.
    return {"name": "nnunet", "architecture": kind, **silent, **given, "deep_supervision": False}


def _older(own: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The network of plans by nnunetv2 2.0 to 2.3, which named its parts otherwise."""
    kind = str(own.get("UNet_class_name"))
    if kind not in _KINDS:
        raise _other_network(path, kind)
    try:
        stages = len(own["n_conv_per_stage_encoder"])
        base, most = int(own["UNet_base_num_features"]), int(own["unet_max_num_features"])
        if len(own["patch_size"]) != 3:
            return None
        return {
            "name": "nnunet",
            "architecture": kind,
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "kernel_sizes": own["conv_kernel_sizes"],
            "strides": own["pool_op_kernel_sizes"],
            "n_blocks_per_stage": own["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": own["n_conv_per_stage_decoder"],
            "deep_supervision": False,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _odd(path, error) from error


def _validated(models: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        settings = NnUNetSettings.model_validate(models)
    except ValidationError as error:
        raise WeightsError(
            "nnU-Net's plans describe a network that cannot be built here",
            file=path,
            found="\n".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors()),
        ) from error
    return settings.model_dump(mode="json", include=set(models))


def _axis_of(orientation: str, pair: str) -> int:
    return next(i for i, letter in enumerate(orientation) if letter in pair)


def _checked(stored: str) -> str:
    letters = stored.upper()
    if len(letters) != 3 or any(sum(x in pair for x in letters) != 1 for pair in _AXES):
        raise WeightsError(
            f"'{stored}' does not say where three axes point",
            expected="one of R and L, one of A and P, one of S and I, such as RAS or LPI",
            fix="nibabel.aff2axcodes(nibabel.load(FILE).affine) gives it",
        )
    return letters


def _flat(path: Path, configuration: str) -> WeightsError:
    return WeightsError(
        "a 2D network segments slice by slice, and cannot be taken over",
        file=path,
        found=f"configuration {configuration}",
        fix="take the 3d_fullres or 3d_lowres model",
    )


def _other_network(path: Path, kind: str) -> WeightsError:
    return WeightsError(
        "nnU-Net's plans name a network that is not known here",
        file=path,
        found=kind,
        expected=" or ".join(_KINDS),
    )


def _odd(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        "nnU-Net's plans cannot be read",
        file=path,
        found=f"{type(error).__name__}: {error}",
        expected="plans.json as nnunetv2 writes it",
    )
