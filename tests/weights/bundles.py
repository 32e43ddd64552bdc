"""Bundles as MONAI writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, init_bundle
from torch import nn

CLASSES = ("background", "Anterior", "Posterior")
CHANNELS: dict[str, Any] = {"in_channels": 2, "out_channels": 3}
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "channels": [4, 8, 8],
        "strides": [2, [2, 2, 1]],
        "num_res_units": 2,
        "norm": "batch",
        "act": "prelu",
        "dropout": 0.15,
    },
    "unet plain": {
        "_target_": "monai.networks.nets.UNet",
        "_desc_": "as small as can be",
        "spatial_dims": 3,
        "channels": [4, 8, 8],
        "strides": [2, 2, 2],
        "kernel_size": [3, 3, 1],
        "up_kernel_size": 5,
        "act": ["LeakyReLU", {"negative_slope": 0.2, "inplace": True}],
        "norm": "INSTANCE",
    },
    "basicunet": {"_target_": "BasicUNet", "features": [4, 4, 4, 4, 4, 4]},
    "basicunet group": {
        "_target_": "monai.networks.nets.basic_unet.BasicUNet",
        "spatial_dims": 3,
        "features": [6, 6, 6, 6, 6, 3],
        "act": "relu",
        "norm": ["group", {"num_groups": 3}],
        "upsample": "nontrainable",
    },
    "dynunet": {
        "_target_": "DynUNet",
        "spatial_dims": 3,
        "kernel_size": [3, 3, [3, 3, 1], 3],
        "strides": [1, 2, 2, [2, 2, 1]],
        "upsample_kernel_size": [2, 2, [2, 2, 1]],
        "filters": [4, 6, 8, 10, 12],
        "norm_name": "instance",
        "deep_supervision": True,
        "deep_supr_num": 2,
        "res_block": True,
        "dropout": 0.1,
    },
    "dynunet affine": {
        "_target_": "DynUNet",
        "spatial_dims": 3,
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 6, 8],
        "trans_bias": True,
    },
    "segresnet": {
        "_target_": "SegResNet",
        "init_filters": 8,
        "blocks_down": [1, 2],
        "blocks_up": [1],
        "dropout_prob": 0.2,
    },
    "segresnet deconv": {
        "_target_": "SegResNet",
        "spatial_dims": 3,
        "init_filters": 4,
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "norm": ["GROUP", {"num_groups": 2}],
        "upsample_mode": "deconv",
    },
    "segresnet_ds": {
        "_target_": "SegResNetDS",
        "init_filters": 4,
        "blocks_down": [1, 2, 1],
        "norm": "INSTANCE",
        "dsdepth": 2,
        "resolution": [1, 1, 2],
    },
    "unetr": {
        "_target_": "UNETR",
        "img_size": [16, 16, 32],
        "feature_size": 3,
        "hidden_size": 8,
        "mlp_dim": 4,
        "num_heads": 2,
    },
    "swinunetr": {
        "_target_": "SwinUNETR",
        "spatial_dims": 3,
        "feature_size": 12,
        "window_size": 3,
        "use_checkpoint": True,
    },
    "swinunetr v2": {
        "_target_": "SwinUNETR",
        "feature_size": 12,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 3, 4],
        "window_size": [4, 4, 2],
        "norm_name": "batch",
        "use_v2": True,
        "downsample": "mergingv2",
        "drop_rate": 0.1,
    },
}
METADATA: dict[str, Any] = {
    "version": "0.3.7",
    "task": "anything",
    "copyright": "Copyright (c) Nobody",
    "references": ["Someone et al. 2021", "Someone else 2022"],
    "network_data_format": {
        "inputs": {
            "image": {"num_channels": 2, "channel_def": {"0": "T1", "1": "T2"}},
        },
        "outputs": {
            "pred": {
                "num_channels": 3,
                "channel_def": {"0": "Background", "1": "Anterior", "2": "Posterior"},
            }
        },
    },
}


def bundle(
    folder: Path,
    network: Mapping[str, Any] | None = None,
    weights: nn.Module | None = None,
    metadata: Mapping[str, Any] = METADATA,
    further: Mapping[str, Any] | None = None,
) -> Path:
    """A bundle as `python -m monai.bundle init_bundle` makes it."""
    inference = {
        "imports": ["$import glob"],
        "device": "$torch.device('cpu')",
        "network_def": CHANNELS | dict(network or NETWORKS["segresnet"]),
        "network": "$@network_def.to(@device)",
    }
    weights = weights or nn.Conv3d(1, 1, 1)
    init_bundle(
        folder,
        network=weights,
        metadata_str=dict(metadata),
        inference_str=inference | dict(further or {}),
    )
    return folder


def monai_network(network: Mapping[str, Any]) -> nn.Module:
    """The network that MONAI itself makes of a configuration, with random statistics."""
    torch.manual_seed(1)
    parser = ConfigParser({"network_def": {**network, **CHANNELS}})
    made: nn.Module = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(7)
    return made
