"""The networks of MONAI and torch that have the same tensors as ours, as a bundle describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.networks.layers.norms import activation_layer, norm_layer

Definition = dict[str, Any]
"""Entries of a bundle's configuration; `network_def` is the network."""

_CHANNELS = {"spatial_dims": 3, "in_channels": "@in_channels", "out_channels": "@out_channels"}


def monai_definition(settings: NetworkSettings) -> Definition | None:
    """The network in public classes of MONAI and torch, with the names that our tensors have.

    Args:
        settings: which network.

    Returns:
        Entries of a configuration that also has `in_channels` and `out_channels`; None where
        MONAI has no such network.
    """
    define = _DEFINITIONS.get(settings.name)
    return define(settings) if define else None


def _class(name: str, **arguments: Any) -> Definition:
    return {"_target_": name, **_CHANNELS, **arguments}


def _unet(settings: Any) -> Definition:
    trunk = _class(
        "UNet",
        channels=settings.channels,
        strides=settings.strides,
        num_res_units=settings.num_res_units,
        act="PRELU",
        norm=norm_layer(settings.norm, [*settings.channels, settings.features]),
        dropout=settings.dropout,
    )
    head = {
        "_target_": "torch.nn.Conv3d",
        "in_channels": settings.features,
        "out_channels": "@out_channels",
        "kernel_size": 1,
    }
    joined = "$torch.nn.Sequential(collections.OrderedDict(trunk=@trunk, head=@head))"
    return {
        "trunk": trunk | {"out_channels": settings.features},
        "head": head,
        "network_def": joined,
    }


def _monai_unet(settings: Any) -> Definition:
    network = _class(
        "UNet",
        channels=settings.channels,
        strides=settings.strides,
        kernel_size=settings.kernel_size,
        up_kernel_size=settings.up_kernel_size,
        num_res_units=settings.num_res_units,
        act=activation_layer(settings.act, settings.negative_slope),
        norm=norm_layer(settings.norm, settings.channels),
        dropout=settings.dropout,
    )
    return {"network_def": network}


def _basicunet(settings: Any) -> Definition:
    network = _class(
        "BasicUNet",
        features=settings.features,
        act=activation_layer(settings.act, settings.negative_slope),
        norm=norm_layer(settings.norm, settings.features, settings.norm_groups),
        dropout=settings.dropout,
        upsample=settings.upsample,
    )
    return {"network_def": network}


def _dynunet(settings: Any) -> Definition:
    levels = len(settings.channels)
    strides = settings.strides or [1] + [2] * (levels - 1)
    network = _class(
        "DynUNet",
        kernel_size=settings.kernel_size or [3] * levels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=settings.channels,
        dropout=settings.dropout or None,
        norm_name=norm_layer(settings.norm, settings.channels, settings.norm_groups),
        deep_supervision=settings.deep_supervision,
        deep_supr_num=settings.deep_supr_num,
        res_block=settings.residual,
        trans_bias=settings.trans_bias,
    )
    return {"network_def": network}


def _segresnet(settings: Any) -> Definition:
    network = _class(
        "SegResNet",
        init_filters=settings.init_filters,
        dropout_prob=settings.dropout or None,
        norm=norm_layer(settings.norm, [settings.init_filters], settings.norm_groups),
        blocks_down=settings.blocks_down,
        blocks_up=settings.blocks_up,
        upsample_mode=settings.upsample,
    )
    return {"network_def": network}


def _swinunetr(settings: Any) -> Definition:
    network = _class(
        "SwinUNETR",
        feature_size=settings.feature_size,
        depths=settings.depths,
        num_heads=settings.num_heads,
        window_size=settings.window_size,
        norm_name=norm_layer(settings.norm, [settings.feature_size], settings.norm_groups),
        drop_rate=settings.dropout,
        attn_drop_rate=settings.attention_dropout,
        dropout_path_rate=settings.drop_path,
        use_checkpoint=settings.use_checkpoint,
        downsample=settings.downsample,
        use_v2=settings.use_v2,
    )
    return {"network_def": network}


_DEFINITIONS: Mapping[str, Callable[[Any], Definition]] = {
    "unet": _unet,
    "monai_unet": _monai_unet,
    "basicunet": _basicunet,
    "dynunet": _dynunet,
    "segresnet": _segresnet,
    "swinunetr": _swinunetr,
}
"""`models.name` -> its definition; tests load the tensors of each into MONAI's class."""
