"""Files of every named family, small, as its own library or code writes them.

Widths are reduced; names, nesting and the other parts of a file are those of the published one.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from monai.networks.nets.resnet import ResNet, ResNetFeatures
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor, nn

from hsf_finetune.networks.anatomy import Anatomy
from tests.networks.architectures.test_arunet import FOLDER as HSF
from tests.networks.architectures.test_arunet import original
from tests.weights.format_files import nnunet
from tests.weights.sources.test_nnssl_file import SMALL
from tests.weights.sources.test_nnssl_file import _file as nnssl_file

STORED = Path(__file__).parent / "stored" / "published"
"""Made by stored/make_published.py, with the networks' own code."""
Pair = tuple[Tensor, Tensor]
Compared = Callable[[Anatomy], Pair]
"""The network that took the weights -> what it computes, and what the original does."""
Written = tuple[Path, Compared]


@dataclass(frozen=True)
class Family:
    """Named weights, and a small file of theirs.

    Args:
        name: for `finetuning.pretrained`.
        write: writes the file into a folder; returns it, and how its network is compared.
        models: the widths that differ from the published ones.
        classes: how many outputs it has; None is those of the description.
        marks: when to skip it.
    """

    name: str
    write: Callable[[Path], Written]
    models: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None
    marks: tuple[pytest.MarkDecorator, ...] = ()


def copy_head(ours: Anatomy, state: Mapping[str, Tensor]) -> None:
    """Gives a network the head of the original, where the weights bring none."""
    own, blocks = ours.network.state_dict(), ours.tensor_block()
    for name in own:
        if blocks[name] == ours.head.name:
            own[name].copy_(state[name])


# ------------------------------------------------------------------ how they are written
def library(
    make: Callable[[], nn.Module], layout: Callable[[dict[str, Tensor]], Any], channels: int = 1
) -> Callable[[Path], Written]:
    """A library's network, in a layout; logits are compared."""

    def write(folder: Path) -> Written:
        theirs = make().eval()
        torch.save(layout(theirs.state_dict()), folder / "weights.pt")

        def compare(ours: Anatomy) -> Pair:
            copy_head(ours, theirs.state_dict())
            image = torch.randn(1, channels, 32, 32, 64)
            return ours.network(image), theirs(image)

        return folder / "weights.pt", compare

    return write


def swin(channels: int, classes: int) -> Callable[[], nn.Module]:
    return lambda: SwinUNETR(channels, classes, feature_size=12)


def self_supervised(
    channels: int, layout: Callable[[dict[str, Tensor]], Any]
) -> Callable[[Path], Written]:
    """A transformer beside heads that are not used; its features are compared."""

    def write(folder: Path) -> Written:
        theirs = swin(channels, 2)().eval().swinViT
        state = {f"swinViT.{name}": tensor for name, tensor in theirs.state_dict().items()}
        heads = {"rotation_head.weight": torch.ones(4, 8), "contrastive_head.bias": torch.ones(8)}
        torch.save(layout(state | heads), folder / "weights.pt")

        def compare(ours: Anatomy) -> Pair:
            image = torch.randn(1, channels, 32, 32, 32)
            assert ours.backbone is not None
            return ours.backbone(image)[-1], theirs(image)[-1]

        return folder / "weights.pt", compare

    return write


def as_monai_ssl(state: dict[str, Tensor]) -> dict[str, Any]:
    """Several GPUs, no name of the transformer, and timm's names of MLPs."""
    return {
        "state_dict": {
            f"module.{name.removeprefix('swinViT.').replace('linear', 'fc')}": tensor
            for name, tensor in state.items()
        }
    }


def medicalnet(depth: int) -> Callable[[Path], Written]:
    """A ResNet of several GPUs; the features of its deepest level are compared."""
    layers = {10: [1] * 4, 18: [2] * 4, 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}[depth]

    def write(folder: Path) -> Written:
        theirs = ResNet(
            *("bottleneck" if depth == 50 else "basic", layers, [2, 4, 8, 16]),
            n_input_channels=1,
            conv1_t_stride=2,
            shortcut_type="A" if depth in (18, 34) else "B",
            bias_downsample=False,
            feed_forward=False,
        ).eval()
        state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
        torch.save({"state_dict": state}, folder / "resnet.pth")

        def compare(ours: Anatomy) -> Pair:
            image = torch.randn(1, 1, 32, 32, 64)
            found = ours.network.encoder(image)  # type: ignore[operator]
            return found[-1], ResNetFeatures.forward(theirs, image)[-1]  # type: ignore[arg-type]

        return folder / "resnet.pth", compare

    return write


def published(name: str) -> Callable[[Path], Written]:
    """A file, an image and an output of the original code."""

    def write(folder: Path) -> Written:
        stored = torch.load(STORED / f"{name}_output.pt")

        def compare(ours: Anatomy) -> Pair:
            if head := stored.get("head"):
                copy_head(ours, {f"out_tr.final_conv.{key}": value for key, value in head.items()})
            if name == "anatomix":
                # It gives features, and the head is ours.
                ours.network.head = nn.Identity()
            return ours.network(stored["image"]), stored["output"]

        return STORED / f"{name}.pt", compare

    return write


def stunet_pair(folder: Path) -> Written:
    """As nnU-Net v1 leaves it: the weights, and a pickle with their plans beside them."""
    path = folder / "base_ep4k.model"
    shutil.copy(STORED / "stunet.pt", path)
    stage = {
        "patch_size": [128, 128, 128],
        "current_spacing": [1.5, 1.5, 1.5],
        # STU-Net has three levels here, whatever the plans say.
        "pool_op_kernel_sizes": [[1, 2, 2], [2, 2, 2], [2, 2, 2]],
        "conv_kernel_sizes": [[1, 3, 3]] * 4,
    }
    plans = {
        "num_modalities": 1,
        "modalities": {0: "nonCT"},
        "normalization_schemes": {0: "nonCT"},
        "use_mask_for_norm": {0: False},
        "all_classes": [1, 2],
        "transpose_forward": [0, 1, 2],
        "dataset_properties": {"intensityproperties": None},
        "plans_per_stage": {0: stage},
        "preprocessor_name": "GenericPreprocessor",
    }
    content = {"init": [], "name": "STUNetTrainer_base", "class": "x", "plans": plans}
    (folder / "base_ep4k.model.pkl").write_bytes(pickle.dumps(content))
    stored = torch.load(STORED / "stunet_output.pt")

    def compare(ours: Anatomy) -> Pair:
        # Its arrays are (z, y, x), and images here (x, y, z).
        turned = ours.network(stored["image"].permute(0, 1, 4, 3, 2))
        return turned.permute(0, 1, 4, 3, 2), stored["output"]

    return path, compare


def results_folder(kind: str, stored: str, zipped: bool = False) -> Callable[[Path], Written]:
    """A results folder of nnU-Net, with logits of its own."""

    def write(folder: Path) -> Written:
        found = nnunet(kind)(folder)
        given = found
        if zipped:
            made = shutil.make_archive(str(folder / "made"), "zip", found.parent, found.name)
            given = Path(made)

        def compare(ours: Anatomy) -> Pair:
            with np.load(found.parent / "reference.npz") as reference:
                image = torch.from_numpy(reference["image"].astype(np.float32))
                expected = torch.from_numpy(reference[stored])
            image[0] = (image[0] - image[0].mean()) / image[0].std(correction=0)
            return ours.network(image[None])[0], expected

        return given, compare

    return write


def hsf(folder: Path) -> Written:
    """Lightning's, and logits of HSF's own network."""

    def compare(ours: Anatomy) -> Pair:
        given = torch.load(HSF / "arunet8_perturbed_io.pt", weights_only=True)
        # It ends in a softmax.
        return ours.network(given["x"]).softmax(1), given["y"]

    return HSF / "arunet8_perturbed.ckpt", compare


def openmind(folder: Path) -> Written:
    """nnssl's, with the plan inside; the features of the encoder of its library are compared."""
    path = nnssl_file(folder / "resencl.pth", "ResidualEncoderUNet")
    same = ("features_per_stage", "kernel_sizes", "strides", "n_blocks_per_stage")
    theirs = ResidualEncoder(
        *(1, 3),
        **{key: SMALL[key] for key in same},
        **{"conv_op": nn.Conv3d, "conv_bias": True, "norm_op": nn.InstanceNorm3d},
        **{"norm_op_kwargs": SMALL["norm_op_kwargs"], "nonlin": nn.LeakyReLU, "return_skips": True},
    ).eval()
    state = torch.load(path)["network_weights"]
    named = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    theirs.load_state_dict(named)

    def compare(ours: Anatomy) -> Pair:
        image = torch.randn(1, 1, 8, 8, 8)
        return ours.network.encoder(image)[-1], theirs(image)[-1]  # type: ignore[operator]

    return path, compare


def primus(folder: Path) -> Written:
    """Nnssl's masked autoencoder; logits are compared, with the decoder of the file."""
    path = STORED / "primus.pt"
    state, stored = torch.load(path)["network_weights"], torch.load(STORED / "primus_output.pt")

    def compare(ours: Anatomy) -> Pair:
        own = ours.network.state_dict()
        # There is one output; the first of ours is compared.
        for name in own:
            if name.startswith("up_projection.decode.2."):
                own[name].zero_()
            if name.startswith("up_projection."):
                part = (slice(None),) * (own[name].dim() > 1)
                own[name][(*part, slice(state[name].shape[len(part)]))].copy_(state[name])
        # Its arrays are (z, y, x), and images here (x, y, z).
        turned = ours.network(stored["image"].permute(0, 1, 4, 3, 2))
        return turned.permute(0, 1, 4, 3, 2)[:, :1], stored["output"]

    return path, compare


SWIN = {"feature_size": 12}
RESNET = {"width": 2, "decoder_channels": [4, 4, 4, 2, 2]}
STU = {"features_per_stage": [2, 4, 4], "n_blocks_per_stage": [1, 2, 1]}
FAMILIES = (
    Family("hsf", hsf, {"hparams": {"f_maps": 8}}, marks=(original,)),
    Family("suprem_unet", published("suprem_unet"), {"width": 2}, 3),
    Family(
        "suprem_segresnet",
        library(
            lambda: SegResNet(3, 8, 1, 3, blocks_down=(1, 2), blocks_up=(1,)),
            lambda state: {"net": {f"module.{name}": tensor for name, tensor in state.items()}},
        ),
        {"init_filters": 8, "blocks_down": [1, 2], "blocks_up": [1]},
        3,
    ),
    Family(
        "suprem_swinunetr",
        library(
            swin(1, 3),
            lambda state: {
                "net": {f"module.backbone.{name}": tensor for name, tensor in state.items()}
                | {"module.organ_embedding": torch.ones(3, 8)}
            },
        ),
        SWIN,
        3,
    ),
    Family("anatomix", published("anatomix"), {"width": 2, "halvings": 2, "features": 3}, 3),
    Family("swinunetr_ssl", self_supervised(1, as_monai_ssl), SWIN, 3),
    Family("swinunetr_btcv", library(swin(1, 14), dict), SWIN),
    Family("brainsegfounder", self_supervised(2, lambda state: {"state_dict": state}), SWIN, 3),
    *(
        Family(
            f"stunet_{size}",
            published("stunet"),
            STU | {"strides": [1, [1, 2, 2], 2], "orientation": "RAS"},
            3,
        )
        for size in ("small", "large", "huge")
    ),
    Family("stunet_base", stunet_pair, classes=3),
    *(
        Family(f"medicalnet_resnet{depth}", medicalnet(depth), RESNET, 3)
        for depth in (10, 18, 34, 50)
    ),
    Family("openmind_resencl", openmind, classes=3),
    Family("openmind_primus", primus, classes=3),
    Family("totalsegmentator_ct", results_folder("plain", "RAS"), classes=3),
    Family("totalsegmentator_mr", results_folder("residual", "LAS", zipped=True), classes=3),
)
