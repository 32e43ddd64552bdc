"""A small model in the form of nnU-Net v1: a network with its names, and its two files."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WIDTHS, POOLS = (4, 6, 8), ((1, 2, 2), (2, 2, 2))
KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3))


class Convolution(nn.Module):
    """Convolution, instance normalisation and leaky ReLU."""

    def __init__(self, inputs: int, width: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        padding = [1 if size == 3 else 0 for size in kernel]
        self.conv = nn.Conv3d(inputs, width, kernel, stride, padding)
        self.instnorm = nn.InstanceNorm3d(width, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.instnorm(self.conv(x)), 0.01)


class Stage(nn.Module):
    """Convolutions in a row."""

    def __init__(self, inputs: int, width: int, level: int, first: int, count: int) -> None:
        super().__init__()
        strides = [POOLS[level - 1] if level and first == 0 and not n else 1 for n in range(count)]
        self.blocks = nn.Sequential(
            *(
                Convolution(inputs if not n else width, width, KERNELS[level], stride)
                for n, stride in enumerate(strides)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blocks(x)
        return result


class UNet(nn.Module):
    """A UNet whose last stage, and those of its decoder, are halved, as in nnU-Net v1."""

    def __init__(self, channels: int, classes: int, convs: int) -> None:
        super().__init__()
        last = len(POOLS)
        inputs = (channels, *WIDTHS)
        stages: list[nn.Module] = [
            Stage(inputs[level], WIDTHS[level], level, 0, convs) for level in range(last)
        ]
        width = WIDTHS[last]
        bottom = (Stage(inputs[last], width, last, 0, convs - 1), Stage(width, width, last, 1, 1))
        self.conv_blocks_context = nn.ModuleList([*stages, nn.Sequential(*bottom)])
        up, ups, heads = [], [], []
        for level in reversed(range(last)):
            below, width = WIDTHS[level + 1], WIDTHS[level]
            size = POOLS[level]
            ups.append(nn.ConvTranspose3d(below, width, size, size, bias=False))
            # The kernel of a stage of the decoder is that of the stage below.
            first = Stage(2 * width, width, level + 1, 1, convs - 1)
            up.append(nn.Sequential(first, Stage(width, width, level + 1, 1, 1)))
            heads.append(nn.Conv3d(width, classes, 1, bias=False))
        self.conv_blocks_localization = nn.ModuleList(up)
        self.tu, self.seg_outputs = nn.ModuleList(ups), nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.conv_blocks_context:
            x = stage(x)
            skips.append(x)
        for number, (up, stage) in enumerate(
            zip(self.tu, self.conv_blocks_localization, strict=True)
        ):
            x = stage(torch.cat((up(x), skips[-2 - number]), dim=1))
        result: Tensor = self.seg_outputs[-1](x)
        return result


def write_model(folder: Path, convs: int = 2, channels: int = 2, **changes: Any) -> UNet:
    """The two files of fold 0, as v1 writes them; `changes` are entries of the plans."""
    torch.manual_seed(0)
    network = UNet(channels, 3, convs).eval()
    write_files(folder, network, convs, channels, **changes)
    return network


def write_files(
    folder: Path, network: nn.Module, convs: int = 2, channels: int = 2, **changes: Any
) -> None:
    """A network with the same plans."""
    file = folder / "fold_0" / "model_final_checkpoint.model"
    file.parent.mkdir(parents=True)
    torch.save({"epoch": 9, "state_dict": network.state_dict()}, file)
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [1, 2, 2],
        "patch_size": np.array([8, 16, 24]),
        "current_spacing": np.array([3.0, 1.0, 0.8]),
        "pool_op_kernel_sizes": [list(size) for size in POOLS],
        "conv_kernel_sizes": [list(size) for size in KERNELS],
    }
    spread = ("mean", "sd", "percentile_00_5", "percentile_99_5")
    ct = dict(zip(spread, map(np.float32, (40, 20, -100, 300)), strict=True))
    plans = {
        "num_modalities": channels,
        "modalities": {0: "T1", 1: "CT"},
        "normalization_schemes": OrderedDict({0: "nonCT", 1: "CT"}),
        "use_mask_for_norm": OrderedDict({0: True, 1: False}),
        "dataset_properties": {"intensityproperties": OrderedDict({1: ct})},
        "num_classes": 2,
        "all_classes": [1, 7],
        "base_num_features": WIDTHS[0],
        "transpose_forward": [1, 0, 2],
        "preprocessed_data_folder": "/data/nnUNet_preprocessed/Task101_Hippocampus",
        "plans_per_stage": {1: stage},
        "preprocessor_name": "GenericPreprocessor",
        "conv_per_stage": convs,
        **changes,
    }
    arguments = ("plans.pkl", 0, "/results", "/data", True, 1, True, False, True)
    info = {"init": arguments, "name": "nnUNetTrainerV2", "class": "<class ...>", "plans": plans}
    file.with_name(f"{file.name}.pkl").write_bytes(pickle.dumps(OrderedDict(info)))
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans))
