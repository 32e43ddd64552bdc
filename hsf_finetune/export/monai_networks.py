"""The networks of MONAI and torch that have the same tensors as ours, as a bundle describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hsf_finetune.config.settings import NetworkSettings, UNetSettings
from hsf_finetune.networks.architectures.basicunet import basicunet_arguments
from hsf_finetune.networks.architectures.dynunet import dynunet_arguments
from hsf_finetune.networks.architectures.mednext import mednext_arguments
from hsf_finetune.networks.architectures.monai_unet import monai_unet_arguments
from hsf_finetune.networks.architectures.segresnet import segresnet_arguments
from hsf_finetune.networks.architectures.segresnet_ds import segresnet_ds_arguments
from hsf_finetune.networks.architectures.swinunetr import swinunetr_arguments
from hsf_finetune.networks.architectures.unet import trunk_arguments

Definition = dict[str, Any]
"""Entries of a bundle's configuration; `network_def` is the network."""

_CHANNELS = {"in_channels": "@in_channels", "out_channels": "@out_channels"}
_CLASSES: Mapping[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "monai_unet": ("UNet", monai_unet_arguments),
    "basicunet": ("BasicUNet", basicunet_arguments),
    "dynunet": ("DynUNet", dynunet_arguments),
    "segresnet": ("SegResNet", segresnet_arguments),
    "segresnet_ds": ("SegResNetDS", segresnet_ds_arguments),
    "swinunetr": ("SwinUNETR", swinunetr_arguments),
    "mednext": ("MedNeXt", mednext_arguments),
}
"""`models.name` -> MONAI's class, and its arguments; tests load the tensors of each into it."""


def monai_definition(settings: NetworkSettings) -> Definition | None:
    """The network in public classes of MONAI and torch, with the names that our tensors have.

    Args:
        settings: which network.

    Returns:
        Entries of a configuration that also has `in_channels` and `out_channels`; None where
        MONAI has no such network.
    """
    if isinstance(settings, UNetSettings):
        return _trunk_and_head(settings)
    if settings.name not in _CLASSES:
        return None
    name, arguments = _CLASSES[settings.name]
    return {"network_def": {"_target_": name, **_CHANNELS, **arguments(settings)}}


def _trunk_and_head(settings: UNetSettings) -> Definition:
    trunk = {"_target_": "UNet", **_CHANNELS, **trunk_arguments(settings)}
    head = {
        "_target_": "torch.nn.Conv3d",
        "in_channels": settings.features,
        "out_channels": "@out_channels",
        "kernel_size": 1,
    }
    joined = "$torch.nn.Sequential(collections.OrderedDict(trunk=@trunk, head=@head))"
    return {"trunk": trunk, "head": head, "network_def": joined}
