"""From settings to a network and its anatomy.

A new network is a settings class, a function that returns its anatomy, and a name in
`BUILDERS`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hsf_finetune.config.settings import ARUNetSettings, NetworkSettings, PretrainedSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.pretrained_network import unknown_network_error

BUILDERS = (
    "unet", "monai_unet", "basicunet", "dynunet", "segresnet", "segresnet_ds", "swinunetr", "unetr",
    "mednext", "resnet_unet", "arunet", "nnunet", "stunet", "suprem_unet", "anatomix", "rsunet",
    "primus",
)  # fmt: skip
"""`models.name`: each is a module of `architectures`, and in it a function of (settings, in_channels,
out_channels) with the same name. Modules are imported when their network is built."""
_INITIALISATION = frozenset(
    getattr(torch.Tensor, f"{name}_")
    for name in ("uniform", "normal", "fill", "zero", "add", "mul", "clamp", "erfinv")
)


def build(settings: NetworkSettings, in_channels: int, out_channels: int) -> Anatomy:
    """A freshly initialised network.

    Args:
        settings: which network, and how wide.
        in_channels: channels of the image.
        out_channels: classes, background included.

    Returns:
        The anatomy; its network maps (B, in_channels, X, Y, Z) to logits
        (B, out_channels, X, Y, Z).

    Raises:
        ConfigError: `models=pretrained`, and no weights have said which network it is.
    """
    if isinstance(settings, PretrainedSettings):
        raise unknown_network_error()
    module = import_module(f"hsf_finetune.networks.architectures.{settings.name}")
    anatomy: Anatomy = getattr(module, settings.name)(settings, in_channels, out_channels)
    return replace(anatomy, settings=settings)


def build_shapes(settings: NetworkSettings, in_channels: int, out_channels: int) -> Anatomy:
    """The network of `build` on the `meta` device: its names, shapes and layers, without numbers."""
    with torch.device("meta"), _WithoutNumbers():
        return build(settings, in_channels, out_channels)


class _WithoutNumbers(TorchFunctionMode):
    """Leaves out the initialisation of tensors on `meta`, where it takes longer than on a CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _INITIALISATION and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def class_axes(
    settings: NetworkSettings, in_channels: int, out_channels: int
) -> dict[str, tuple[int, ...]]:
    """State dict name -> the axes whose size is the number of classes, for tensors that have one.

    They are found by building the network's shapes with one class more: the axes that grow
    are the class axes.
    """
    return _growing_axes(settings, (in_channels, out_channels), ((in_channels, out_channels + 1),))


def channel_axes(
    settings: NetworkSettings, in_channels: int, out_channels: int
) -> dict[str, tuple[int, ...]]:
    """State dict name -> the axes whose size is the number of input channels.

    As in `class_axes`, with one channel more, and with two: whether the shortcut around the
    first block is a convolution or nothing at all depends on the number of channels.
    """
    if isinstance(settings, ARUNetSettings):
        # Channels in the settings would contradict the additional ones.
        hparams = settings.hparams.model_copy(update={"in_channels": None})
        settings = settings.model_copy(update={"hparams": hparams})
    larger = tuple((in_channels + n, out_channels) for n in (1, 2))
    return _growing_axes(settings, (in_channels, out_channels), larger)


def _growing_axes(
    settings: NetworkSettings, channels: tuple[int, int], larger: tuple[tuple[int, int], ...]
) -> dict[str, tuple[int, ...]]:
    """The axes of each tensor that differ with any of the larger numbers of channels."""
    axes: dict[str, set[int]] = {}
    state = build_shapes(settings, *channels).network.state_dict()
    for numbers in larger:
        other = build_shapes(settings, *numbers).network.state_dict()
        for name in state.keys() & other.keys():
            sizes = zip(state[name].shape, other[name].shape, strict=True)
            growing = {axis for axis, (a, b) in enumerate(sizes) if a != b}
            axes.setdefault(name, set()).update(growing)
    return {name: tuple(sorted(axes[name])) for name in state if axes.get(name)}
