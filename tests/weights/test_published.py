"""Files in the layout of published weights tell their network, load whole, and compute the same.

The networks' own code wrote them and computed the outputs: `stored/make_published.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.mednext import MedNeXt
from monai.networks.nets.resnet import ResNet, ResNetFeatures
from monai.networks.nets.segresnet_ds import SegResNetDS
from monai.networks.nets.unetr import UNETR
from torch import nn

from hsf_finetune.config.settings import PretrainedSettings, ResNetUNetSettings, UNETRSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.networks.pretrained_network import resolve_network
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.read_source import read_source
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from hsf_finetune.weights.transfer.receipt import Receipt
from tests.closeness import NETWORK, assert_equal_up_to_rounding
from tests.weights.small_networks import load

STORED = Path(__file__).parent / "stored" / "published"
CLASSES = ("background", "A", "B")


def taken(checkpoint: Checkpoint, part: Any = "all", **known: Any) -> tuple[Anatomy, Receipt]:
    """The network that `models=pretrained` builds for a file, with its weights."""
    models = checkpoint.models
    assert models is not None
    settings = resolve_network(PretrainedSettings(), {**models, **known}, checkpoint.path)
    ours = build(settings, 1, len(CLASSES))
    matching = MatchRequest(load=part)
    receipt = load(settings, ours, checkpoint, CLASSES, source_classes=CLASSES, matching=matching)
    ours.network.eval()
    return ours, receipt


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("stunet", {"strides": [1, [1, 2, 2], 2]}),
        ("suprem_unet", {}),
        ("anatomix", {}),
        ("anatomix_dev", {}),
        ("rsunet", {}),
    ],
)
def test_files_of_the_original_code(name: str, known: dict[str, Any]) -> None:
    checkpoint = read_source(STORED / f"{name}.pt")
    assert checkpoint.models is not None
    assert checkpoint.models["name"] == name.removesuffix("_dev")
    ours, receipt = taken(checkpoint, **known)
    assert receipt.share_tensors == receipt.share_parameters == 1
    stored = torch.load(STORED / f"{name}_output.pt")
    if head := stored.get("head"):
        ours.head.modules[0].final_conv.load_state_dict(head)  # type: ignore[union-attr, operator]
    if name.startswith("anatomix"):
        # It gives features, and the head is ours.
        ours.network.head = nn.Identity()
    assert_equal_up_to_rounding(ours.network(stored["image"]), stored["output"], NETWORK)


def segresnet_ds() -> nn.Module:
    return SegResNetDS(
        *(3, 4, 1, 3), blocks_down=(1, 2, 1), blocks_up=(2, 1), dsdepth=2, resolution=(1, 1, 3)
    )


def unetr() -> nn.Module:
    return UNETR(1, 3, 32, feature_size=4, hidden_size=24, mlp_dim=8, num_heads=12)


def mednext() -> nn.Module:
    return MedNeXt(
        *(3, 2, 1, 3, [1, 2], [2, 1], 3),
        **{"blocks_down": (1, 2), "blocks_up": (2, 1), "deep_supervision": True},
    )


@torch.no_grad()
@pytest.mark.parametrize("make", [segresnet_ds, unetr, mednext], ids=lambda make: make.__name__)
def test_files_of_the_library(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = make().eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pt")
    checkpoint = read_source(tmp_path / "weights.pt")
    assert checkpoint.models is not None
    assert checkpoint.models["name"] == make.__name__
    ours, receipt = taken(checkpoint)
    assert receipt.share_tensors == 1
    side = 32 if make is unetr else 8
    image = torch.randn(1, 1, side, side, side)
    expected = theirs(image)
    expected = expected if isinstance(expected, torch.Tensor) else expected[0]
    assert_equal_up_to_rounding(ours.network(image), expected, NETWORK)


@torch.no_grad()
@pytest.mark.parametrize(
    ("depth", "block", "layers"), [(18, "basic", [2, 2, 2, 2]), (50, "bottleneck", [3, 4, 6, 3])]
)
def test_an_encoder_of_medicalnet(
    depth: int, block: str, layers: list[int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    theirs = ResNet(
        *(block, layers, [2, 4, 8, 16]),
        n_input_channels=1,
        conv1_t_stride=2,
        # MedicalNet's shortcuts of 18 layers have no tensors.
        shortcut_type="A" if depth == 18 else "B",
        bias_downsample=False,
        feed_forward=False,
    ).eval()
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet.pth")
    checkpoint = read_source(tmp_path / "resnet.pth")
    ours, receipt = taken(checkpoint, "encoder")
    assert isinstance(ours.settings, ResNetUNetSettings)
    assert ours.settings.depth == depth
    assert receipt.count("encoder") == (len(state), len(state))
    image = torch.randn(1, 1, 32, 32, 64)
    expected = ResNetFeatures.forward(theirs, image)  # type: ignore[arg-type]
    for own, other in zip(ours.network.encoder(image), expected, strict=True):  # type: ignore[operator]
        assert_equal_up_to_rounding(own, other, NETWORK)


@torch.no_grad()
def test_positions_are_interpolated_to_other_sizes() -> None:
    network = build(UNETRSettings(hidden_size=24, mlp_dim=8, image_size=64), 1, 2).network.eval()
    positions = network.vit.patch_embedding.position_embeddings  # type: ignore[union-attr]
    # Positions that are the same everywhere stay so, and rising ones rise.
    network.vit.patch_embedding.patch_embeddings.weight.zero_()  # type: ignore[union-attr]
    rising = torch.arange(4.0).expand(4, 4, 4).reshape(1, -1, 1)
    positions.copy_(rising.expand_as(positions))
    network.vit.patch_embedding.patch_embeddings.bias.zero_()  # type: ignore[union-attr]
    tokens = network.vit.patch_embedding(torch.zeros(1, 1, 32, 32, 32))  # type: ignore[union-attr, operator]
    assert_equal_up_to_rounding(tokens[0, :, 0], torch.tensor([0.5, 2.5]).repeat(4))
