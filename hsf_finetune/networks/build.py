"""From settings to a network and its anatomy.

A new network is one function that returns its anatomy, its settings class, and a
line in `BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.arunet import arunet
from hsf_finetune.networks.dynunet import dynunet
from hsf_finetune.networks.segresnet import segresnet
from hsf_finetune.networks.unet import unet
from hsf_finetune.settings import NetworkSettings

BUILDERS: Mapping[str, Callable[[Any, int, int], Anatomy]] = {
    "unet": unet,
    "dynunet": dynunet,
    "segresnet": segresnet,
    "arunet": arunet,
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
    """
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
    with torch.device("meta"):
        here = build(settings, in_channels, out_channels).network.state_dict()
        more = build(settings, in_channels, out_channels + 1).network.state_dict()
    axes = {
        name: tuple(
            axis
            for axis, (a, b) in enumerate(zip(tensor.shape, more[name].shape, strict=True))
            if a != b
        )
        for name, tensor in here.items()
    }
    return {name: grown for name, grown in axes.items() if grown}
