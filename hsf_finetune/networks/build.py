"""From settings to a network and its anatomy.

A new network is one function that returns its anatomy, its settings class, and a
line in `BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hsf_finetune.config.settings import ARUNetSettings, NetworkSettings, PretrainedSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.architectures.arunet import arunet
from hsf_finetune.networks.architectures.basicunet import basicunet
from hsf_finetune.networks.architectures.dynunet import dynunet
from hsf_finetune.networks.architectures.monai_unet import monai_unet
from hsf_finetune.networks.architectures.nnunet import nnunet
from hsf_finetune.networks.architectures.segresnet import segresnet
from hsf_finetune.networks.architectures.swinunetr import swinunetr
from hsf_finetune.networks.architectures.unet import unet
from hsf_finetune.networks.pretrained_network import no_network_known

BUILDERS: Mapping[str, Callable[[Any, int, int], Anatomy]] = {
    "unet": unet,
    "monai_unet": monai_unet,
    "basicunet": basicunet,
    "dynunet": dynunet,
    "segresnet": segresnet,
    "swinunetr": swinunetr,
    "arunet": arunet,
    "nnunet": nnunet,
}
"""`models.name` -> function of (settings, in_channels, out_channels)."""


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
        ConfigError: `models=pretrained` where no source has said which network that is.
    """
    if isinstance(settings, PretrainedSettings):
        raise no_network_known()
    return BUILDERS[settings.name](settings, in_channels, out_channels)


def class_axes(
    settings: NetworkSettings, in_channels: int, out_channels: int
) -> dict[str, tuple[int, ...]]:
    """Which axes of which tensors count the classes, asked of the network itself.

    It is built on the `meta` device (no memory, no random numbers) with one class
    more; the axes that grew are the class axes.

    Returns:
        State dict name -> axes; tensors without a class axis are left out.
    """
    return _grown(settings, (in_channels, out_channels), ((in_channels, out_channels + 1),))


def channel_axes(
    settings: NetworkSettings, in_channels: int, out_channels: int
) -> dict[str, tuple[int, ...]]:
    """Which axes of which tensors count the input channels, asked of the network itself.

    As in `class_axes`, with one channel more, and with two: a shortcut around the first
    block may be a convolution or nothing at all, as the count happens to be.

    Returns:
        State dict name -> axes; tensors without such an axis are left out.
    """
    if isinstance(settings, ARUNetSettings):
        # What it says of its own channels would contradict the further ones.
        free = settings.hparams.model_copy(update={"in_channels": None})
        settings = settings.model_copy(update={"hparams": free})
    more = tuple((in_channels + n, out_channels) for n in (1, 2))
    return _grown(settings, (in_channels, out_channels), more)


def _grown(
    settings: NetworkSettings, size: tuple[int, int], others: tuple[tuple[int, int], ...]
) -> dict[str, tuple[int, ...]]:
    """The axes of each tensor that differ in any of the other sizes."""
    axes: dict[str, set[int]] = {}
    with torch.device("meta"):
        here = build(settings, *size).network.state_dict()
        for other in others:
            more = build(settings, *other).network.state_dict()
            for name in here.keys() & more.keys():
                sizes = zip(here[name].shape, more[name].shape, strict=True)
                grown = {axis for axis, (a, b) in enumerate(sizes) if a != b}
                axes.setdefault(name, set()).update(grown)
    return {name: tuple(sorted(axes[name])) for name in here if axes.get(name)}
