"""Translates the arguments of MONAI's networks into the settings of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from hsf_finetune.networks.pretrained_network import (
    architecture_settings,
    override_line,
    validate_network,
)
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.bundle_config import (
    OTHER_NETWORK,
    ArgumentError,
    ComputedValueError,
    ConfigObject,
    ObjectArguments,
)

_PREFIX = "monai.networks.nets."
_CHANNELS = ("in_channels", "out_channels")
"""These follow from the data; a bundle may compute them."""
_SAME_NORMS = {"instance_nvfuser": "instance", "syncbatch": "batch"}
"""Other implementations of a normalisation."""
_WITHOUT_EFFECT = ("img_size", "use_flash_attention", "_requires_", "_desc_")


class _Arguments(ObjectArguments):
    """A network's arguments, each of which must be used or have no effect."""

    def __init__(self, description: ConfigObject) -> None:
        super().__init__(description, (*_CHANNELS, *_WITHOUT_EFFECT))

    def dimensions(self, default: Any = ...) -> None:
        """Refuses all but three dimensions."""
        old = "dimensions" in self.description.arguments
        value = self.take("dimensions" if old else "spatial_dims", default)
        if value != 3:
            raise self.error("spatial_dims", value, "3, a network for volumes")

    def norm(self, name: str, default: Any) -> dict[str, Any]:
        """A normalisation, as settings name it."""
        kind, given = self._layer(name, default)
        kind = _SAME_NORMS.get(kind, kind)
        norm = kind if kind in ("instance", "batch", "group") else None
        # As in torch, where only instance normalisation has no parameters by default.
        affine = given.pop("affine", kind != "instance")
        groups = given.pop("num_groups", None)
        if kind == "instance" and affine is False:
            norm, affine = "instance_plain", True
        if norm is None or affine is not True or (groups is None) is (kind == "group") or given:
            raise self.error(
                name, self.take(name, default), "instance, batch or group, without further settings"
            )
        return {"norm": norm} | ({"norm_groups": groups} if groups else {})

    def activation(self, name: str, default: Any) -> dict[str, Any]:
        """A non-linearity, as settings name it."""
        kind, given = self._layer(name, default)
        given.pop("inplace", None)
        # The initial slope of a PReLU does not matter: it is one of the weights.
        if kind == "prelu":
            given.pop("init", None)
        slope = given.pop("negative_slope", 0.01) if kind == "leakyrelu" else None
        if given:
            raise self.error(name, self.take(name, default), "no further settings")
        return {"act": kind} | ({} if slope is None else {"negative_slope": slope})

    def require_relu(self) -> None:
        """Refuses any other non-linearity."""
        if self.activation("act", "relu") != {"act": "relu"}:
            raise self.error("act", self.take("act"), "relu")

    def dropout(self, **names: str) -> dict[str, float]:
        """Shares of features: the settings' name -> MONAI's."""
        found = {}
        for ours, name in names.items():
            value = self.take(name, None)
            if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
                raise self.error(name, value, "a number between 0 and 1")
            found[ours] = value or 0.0
        return found

    def same(self, **defaults: Any) -> dict[str, Any]:
        """Arguments that settings have under the same name."""
        return {name: self.take(name, default) for name, default in defaults.items()}

    def _layer(self, name: str, default: Any) -> tuple[str, dict[str, Any]]:
        """MONAI's `kind` or `[kind, {settings}]`."""
        value = self.take(name, default)
        kind, given = value if isinstance(value, list) and len(value) == 2 else (value, {})
        if isinstance(value, list) and len(value) == 1:
            kind = value[0]
        if not isinstance(kind, str) or not isinstance(given, Mapping):
            raise self.error(name, value, "the name of a layer, or [name, {settings}]")
        return kind.casefold(), dict(given)


def network_settings(description: ConfigObject) -> dict[str, Any]:
    """The network's settings as plain values: `{"name": "segresnet", ...}`.

    `_target_` is compared with a list of names; nothing is imported by it.

    Raises:
        WeightsError: the network is not supported, has an argument that is not, or is
            described by expressions.
    """
    target = description.target.removeprefix(_PREFIX)
    # Also the module's own path, monai.networks.nets.unet.UNet.
    module, _, name = target.rpartition(".")
    known = _NETWORKS.get(name.casefold()) if not module or module in _MODULES else None
    if known is None or (module and not description.target.startswith(_PREFIX)):
        names = "UNet, BasicUNet, DynUNet, SegResNet, SegResNetDS, SwinUNETR, UNETR"
        found = f"{description.key}._target_: {description.target!r}"
        raise description.error(found, f"one of MONAI's {names}")
    models, problems = _translate(known, description)
    if problems:
        raise _problems_error(description, name, models, problems)
    try:
        settings = validate_network(models)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, d['loc'][1:]))}: {d['msg']}" for d in error.errors())
        expected = f"what models={models['name']} can be"
        raise description.error(f"{description.key}: {found}", expected) from error
    return {"name": settings.name} | architecture_settings(settings.model_dump(mode="json"))


# -------------------------------------------------------------------- internals
def _translate(
    reader: Callable[[_Arguments], dict[str, Any]], description: ConfigObject
) -> tuple[dict[str, Any], list[ArgumentError]]:
    """The network's settings, and the arguments that were left out since they do not suit."""
    problems: list[ArgumentError] = []
    arguments = dict(description.arguments)
    while True:
        given = _Arguments(replace(description, arguments=arguments))
        try:
            models = reader(given)
            for name in sorted(given.unused):
                raise given.error(name, arguments[name], "no such argument, which is not supported")
        except ArgumentError as problem:
            # Without an argument that the network needs, nothing can be said of the others.
            if not problems or problem.name in arguments:
                problems.append(problem)
            if arguments.pop(problem.name, None) is None:
                return {}, problems
        else:
            return models, problems


def _problems_error(
    description: ConfigObject,
    name: str,
    models: Mapping[str, Any],
    problems: Sequence[ArgumentError],
) -> WeightsError:
    """The error for arguments that do not suit, with the rest as settings to copy."""
    computed = [problem.name for problem in problems if problem.is_computed]
    fix = ""
    if len(computed) == len(problems):
        settings = (
            override_line(models) if models else f"models={name.casefold()} models.channels=..."
        )
        fix = (
            f"choose the network by hand, and set what is computed ({', '.join(computed)}) beside "
            f"what could be read:\n{settings} finetuning.pretrained=.../models/model.pt"
        )
    elif models:
        fix = f"{OTHER_NETWORK}\nwhat could be read: {override_line(models)}"
    found = "\n".join(str(problem.why.found) for problem in problems)
    expected = "\n".join(dict.fromkeys(str(problem.why.expected) for problem in problems))
    kind = ComputedValueError if len(computed) == len(problems) else WeightsError
    return description.error(found, expected, fix, kind)


# -------------------------------------------------------------------- networks
def _unet(given: _Arguments) -> dict[str, Any]:
    given.dimensions()
    given.require(bias=True, adn_ordering="NDA")
    channels, strides = given.take("channels"), given.take("strides")
    if isinstance(strides, list) and isinstance(channels, list):
        strides = strides[: len(channels) - 1]  # MONAI ignores further ones
    return {
        "name": "monai_unet",
        "channels": channels,
        "strides": strides,
        **given.same(kernel_size=3, up_kernel_size=3, num_res_units=0),
        **given.activation("act", "prelu"),
        **given.norm("norm", "instance"),
        **given.dropout(dropout="dropout"),
    }


def _basicunet(given: _Arguments) -> dict[str, Any]:
    given.dimensions(3)
    given.require(bias=True)
    return {
        "name": "basicunet",
        **given.same(features=[32, 32, 64, 128, 256, 32], upsample="deconv"),
        **given.activation("act", ["leakyrelu", {"negative_slope": 0.1}]),
        **given.norm("norm", ["instance", {"affine": True}]),
        **given.dropout(dropout="dropout"),
    }


def _dynunet(given: _Arguments) -> dict[str, Any]:
    given.dimensions()
    strides, kernels = given.take("strides"), given.take("kernel_size")
    up = given.take("upsample_kernel_size")
    if not isinstance(strides, list) or _sizes(up) != _sizes(strides[1:]):
        raise given.error("upsample_kernel_size", up, "the strides of the levels below")
    slope = given.activation("act_name", ["leakyrelu", {"negative_slope": 0.01}])
    if slope != {"act": "leakyrelu", "negative_slope": 0.01}:
        raise given.error("act_name", slope, "leakyrelu of slope 0.01")
    # MONAI's default is nnU-Net's; it uses the first of longer lists.
    widths = given.take("filters", None) or [min(2 ** (5 + i), 320) for i in range(len(strides))]
    return {
        "name": "dynunet",
        "channels": widths[: len(strides)] if isinstance(widths, list) else widths,
        "strides": strides,
        "kernel_size": kernels,
        **given.norm("norm_name", ["instance", {"affine": True}]),
        "residual": given.take("res_block", False),
        **given.same(trans_bias=False, deep_supervision=False, deep_supr_num=1),
        **given.dropout(dropout="dropout"),
    }


def _segresnet(given: _Arguments) -> dict[str, Any]:
    given.dimensions(3)
    given.require(use_conv_final=True)
    groups, norm_name = given.take("num_groups", 8), given.take("norm_name", "")
    norm = given.norm("norm", ["group", {"num_groups": 8}])
    if norm_name:
        # MONAI's older name for it; it takes precedence.
        if str(norm_name).casefold() != "group":
            raise given.error("norm_name", norm_name, "group")
        norm = {"norm": "group", "norm_groups": groups}
    given.require_relu()
    return {
        "name": "segresnet",
        **given.same(init_filters=8, blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1]),
        **norm,
        "upsample": given.take("upsample_mode", "nontrainable"),
        **given.dropout(dropout="dropout_prob"),
    }


def _swinunetr(given: _Arguments) -> dict[str, Any]:
    given.dimensions(3)
    given.require(patch_size=2, qkv_bias=True, mlp_ratio=4.0, normalize=True, patch_norm=False)
    given.require(use_hyena=False, hyena_stages=None)
    return {
        "name": "swinunetr",
        **given.same(feature_size=24, depths=[2, 2, 2, 2], num_heads=[3, 6, 12, 24]),
        **given.norm("norm_name", "instance"),
        **given.same(window_size=7, use_v2=False, downsample="merging", use_checkpoint=False),
        **given.dropout(
            dropout="drop_rate", attention_dropout="attn_drop_rate", drop_path="dropout_path_rate"
        ),
    }


def _segresnet_ds(given: _Arguments) -> dict[str, Any]:
    given.dimensions(3)
    given.require(preprocess=None)
    given.require_relu()
    down, levels = given.take("blocks_down", [1, 2, 2, 4]), given.take("dsdepth", 1)
    norm = given.norm("norm", "batch")
    # This class gives instance norms a gain unless it is told otherwise.
    if norm == {"norm": "instance_plain"} and isinstance(given.take("norm", "batch"), str):
        norm = {"norm": "instance"}
    return {
        "name": "segresnet_ds",
        "blocks_down": down,
        "blocks_up": given.take("blocks_up", None) or [1] * (len(down) - 1),
        **norm,
        "upsample": given.take("upsample_mode", "deconv"),
        **given.same(init_filters=32, resolution=None),
        "deep_supervision": levels > 1,
        "deep_supr_num": max(1, levels - 1),
    }


def _unetr(given: _Arguments) -> dict[str, Any]:
    given.dimensions(3)
    given.require(proj_type="conv", conv_block=True, res_block=True, qkv_bias=False)
    return {
        "name": "unetr",
        "image_size": given.take("img_size"),
        **given.same(feature_size=16, hidden_size=768, mlp_dim=3072, num_heads=12),
        **given.norm("norm_name", "instance"),
        **given.dropout(dropout="dropout_rate"),
    }


_NETWORKS: Mapping[str, Callable[[_Arguments], dict[str, Any]]] = {
    "unet": _unet,
    "basicunet": _basicunet,
    "dynunet": _dynunet,
    "segresnet": _segresnet,
    "segresnetds": _segresnet_ds,
    "swinunetr": _swinunetr,
    "unetr": _unetr,
}
"""The class in lower case (MONAI has UNet and Unet) -> reader of its arguments."""
_MODULES = ("unet", "basic_unet", "dynunet", "segresnet", "segresnet_ds", "swin_unetr", "unetr")


def _sizes(values: object) -> list[list[object]] | None:
    """Strides or kernels, three numbers each; None for anything but such a list."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    return [list(v) if isinstance(v, list) else [v] * 3 for v in values]
