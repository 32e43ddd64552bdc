"""One small network or more of every kind, with random weights, saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.settings import (
    AnatomixSettings,
    ARUNetHparams,
    ARUNetSettings,
    BasicUNetSettings,
    DynUNetSettings,
    MedNeXtSettings,
    MonaiUNetSettings,
    NetworkSettings,
    NnUNetSettings,
    PrimusSettings,
    ResNetUNetSettings,
    RSUNetSettings,
    SegResNetDSSettings,
    SegResNetSettings,
    STUNetSettings,
    SuPreMUNetSettings,
    SwinUNETRSettings,
    UNETRSettings,
    UNetSettings,
)
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build, channel_axes, class_axes
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.transfer.class_rules import Derivations, HeadPolicy
from hsf_finetune.weights.transfer.input_rules import InputRequest
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.receipt import Receipt
from hsf_finetune.weights.transfer.transfer_weights import transfer

SETTINGS: list[NetworkSettings] = [
    UNetSettings(channels=[4, 8, 8], strides=[2, 2], features=4, norm="batch"),
    DynUNetSettings(channels=[4, 8, 8]),
    DynUNetSettings(channels=[4, 8, 8, 8], deep_supervision=True, deep_supr_num=2, residual=True),
    SegResNetSettings(init_filters=4, blocks_down=[1, 1, 1], blocks_up=[1, 1]),
    MonaiUNetSettings(channels=[4, 8, 8], strides=[2, 2]),
    MonaiUNetSettings(channels=[4, 8, 8], strides=[1, 2], num_res_units=1, norm="batch"),
    MonaiUNetSettings(channels=[4, 8, 8], strides=[2, 2], num_res_units=0),
    BasicUNetSettings(features=[4, 4, 8, 8, 8, 6]),
    SwinUNETRSettings(feature_size=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=3),
    NnUNetSettings(features_per_stage=[4, 6, 8, 8], deep_supervision=True),
    NnUNetSettings(
        architecture="ResidualEncoderUNet", features_per_stage=[4, 6, 8], stem_channels=3
    ),
    SegResNetDSSettings(
        init_filters=4, blocks_down=[1, 1, 1], blocks_up=[1, 1], deep_supervision=True
    ),
    UNETRSettings(feature_size=5, hidden_size=4, mlp_dim=4, num_heads=2, image_size=32),
    MedNeXtSettings(init_filters=2, blocks_down=[1], blocks_up=[1], deep_supervision=True),
    ResNetUNetSettings(depth=10, width=2, decoder_channels=[4, 4, 4, 2, 2]),
    STUNetSettings(features_per_stage=[2, 3, 4]),
    SuPreMUNetSettings(width=2),
    AnatomixSettings(width=2, halvings=2, features=3),
    RSUNetSettings(channels=[2, 3, 4], norm="instance_plain"),
    PrimusSettings(
        embed_dim=12, depth=4, num_heads=1, decoder_channels=[4, 3], image_size=16, drop_path=0
    ),
    ARUNetSettings(hparams=ARUNetHparams(f_maps=4, num_levels=3)),
]
UNET, DYNUNET = SETTINGS[0], SETTINGS[1]
SOURCE = ("background", "A", "B", "C")
every_network = pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda s: f"{s.name}-{SETTINGS.index(s)}"
)


def random_network(
    settings: NetworkSettings, classes: int, seed: int, in_channels: int = 1
) -> Anatomy:
    """A network whose every tensor, norms and statistics included, is random."""
    torch.manual_seed(seed)
    anatomy = build(settings, in_channels, classes)
    with torch.no_grad():
        # Each tensor once: an alias would be changed twice.
        state = anatomy.network.state_dict()
        for name, tensor in {t.data_ptr(): (n, t) for n, t in state.items()}.values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(7)
    anatomy.network.eval()
    return anatomy


def fresh(settings: NetworkSettings, classes: Sequence[str], in_channels: int = 1) -> Anatomy:
    """The network to load into."""
    return random_network(settings, len(classes), seed=99, in_channels=in_channels)


def saved(path: Path, anatomy: Anatomy, classes: Sequence[str], **remarks: object) -> Checkpoint:
    """The network as one of our checkpoints."""
    state = {f"network.{k}": v for k, v in anatomy.network.state_dict().items()}
    remarks = {"format": 1, "classes": list(classes)} | remarks
    torch.save({"state_dict": state, "hsf_finetune": remarks}, path / "source.ckpt")
    return read_checkpoint(path / "source.ckpt")


def load(
    settings: NetworkSettings,
    anatomy: Anatomy,
    checkpoint: Checkpoint,
    classes: Sequence[str],
    derive_from: Derivations | None = None,
    source_classes: Sequence[str] | None = None,
    head: HeadPolicy = "transfer",
    channels: int = 1,
    names: Sequence[str] | None = None,
    source_names: Sequence[str] | None = None,
    policy: Any = None,
    **more: Any,
) -> Receipt:
    """A transfer with the axes that the network is asked for."""
    size = (channels, len(classes))
    axes = class_axes(settings, *size)
    request = HeadRequest(classes, axes, source_classes, derive_from or {}, head)
    inputs = InputRequest(channel_axes(settings, *size), names, source_names, policy)
    return transfer(anatomy, checkpoint, request, inputs, **more)


def image(anatomy: Anatomy, channels: int = 1) -> torch.Tensor:
    """An input of the smallest size that every network takes, in double."""
    x, y, z = anatomy.divisor
    # anatomix mirrors the image at its border, at the deepest level too.
    times = 2 if isinstance(anatomy.settings, AnatomixSettings) else 1
    seed = torch.Generator().manual_seed(0)
    size = (times * x, times * y, 2 * z)
    return torch.randn(1, channels, *size, generator=seed, dtype=torch.float64)


@torch.no_grad()
def logits(anatomy: Anatomy, given: torch.Tensor | None = None) -> torch.Tensor:
    """The network's logits, in the image's precision: in double, if there is none."""
    given = image(anatomy) if given is None else given
    return anatomy.network.to(given.dtype).eval()(given)  # type: ignore[no-any-return]


def unchanged(anatomy: Anatomy, before: dict[str, torch.Tensor]) -> bool:
    """Whether every tensor is still as it was."""
    return all(torch.equal(before[k], v) for k, v in anatomy.network.state_dict().items())


def copied(anatomy: Anatomy) -> dict[str, torch.Tensor]:
    """A copy of every tensor."""
    return {k: v.clone() for k, v in anatomy.network.state_dict().items()}
