"""`models=pretrained` builds the network that a plain state dict of a library belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from torch import nn

from hsf_finetune.api import plan
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import (
    ARUNetHparams,
    ARUNetSettings,
    PretrainedSettings,
    SegResNetSettings,
    UNetSettings,
)
from hsf_finetune.networks.build import build
from hsf_finetune.networks.pretrained_network import resolve_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.infer_network import unrecognised_network_error
from hsf_finetune.weights.sources.read_source import SourceOptions, read_source
from hsf_finetune.weights.transfer.match_names import pair_by_name
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from tests.conftest import CONF, FAST
from tests.weights.small_networks import image, load

SEEDS = range(6)
SEEDS_OF_LARGE = (1, 2, 5)
"""They draw every norm, both versions of the transformer, and three kinds of windows."""
INSTANCE = ("instance", {"affine": True})


def widths(draw: Random, levels: int) -> list[int]:
    return [draw.choice((4, 6, 8)) for _ in range(levels)]


def kernel(draw: Random) -> Any:
    return draw.choice((3, [3, 3, 3], [1, 3, 3], [3, 3, 1]))


def halving(draw: Random) -> Any:
    return draw.choice((2, [2, 2, 1], [1, 2, 2]))


def monai_unet(draw: Random, channels: int) -> nn.Module:
    levels, units = draw.choice((3, 4)), draw.choice((0, 1, 2, 3))
    return UNet(
        *(3, channels, 4, widths(draw, levels)),
        # Without residual units a stride leaves no trace.
        strides=[draw.choice((1, 2)) if units else 2 for _ in range(levels - 1)],
        kernel_size=kernel(draw) if units == 0 else draw.choice((3, 5, [3, 3, 1])),
        up_kernel_size=draw.choice((3, 5)),
        num_res_units=units,
        act=draw.choice(("prelu", "relu")),
        norm=draw.choice(("instance", INSTANCE, "batch")),
        dropout=draw.choice((0.0, 0.2)),
    )


def unet(draw: Random, channels: int) -> nn.Module:
    levels, units = draw.choice((2, 3, 4)), draw.choice((0, 1, 2))
    settings = UNetSettings(
        channels=widths(draw, levels),
        strides=[draw.choice((1, 2)) if units else 2 for _ in range(levels - 1)],
        features=draw.choice((3, 5)),
        num_res_units=units,
        norm=draw.choice(("instance", "instance_plain", "batch")),
    )
    return build(settings, channels, 4).network


def basicunet(draw: Random, channels: int) -> nn.Module:
    return BasicUNet(
        *(3, channels, 4, widths(draw, 6)),
        act=draw.choice((("leakyrelu", {"negative_slope": 0.1}), "prelu")),
        norm=draw.choice(("instance", INSTANCE, "batch")),
        upsample=draw.choice(("deconv", "nontrainable", "pixelshuffle")),
    )


def dynunet(draw: Random, channels: int) -> nn.Module:
    levels = draw.choice((3, 4, 5))
    strides = [halving(draw) for _ in range(levels - 1)]
    return DynUNet(
        *(3, channels, 4, [kernel(draw) for _ in range(levels)], [1, *strides], strides),
        filters=widths(draw, levels),
        norm_name=draw.choice(("instance", INSTANCE, "batch")),
        deep_supervision=(supervised := draw.choice((True, False))),
        deep_supr_num=draw.randint(1, levels - 2) if supervised else 1,
        res_block=draw.choice((True, False)),
        trans_bias=draw.choice((True, False)),
    )


def segresnet(draw: Random, channels: int) -> nn.Module:
    levels = draw.choice((2, 3, 4))
    return SegResNet(
        *(3, draw.choice((8, 16)), channels, 4),
        blocks_down=tuple(draw.choice((1, 2)) for _ in range(levels)),
        blocks_up=tuple(draw.choice((1, 2)) for _ in range(levels - 1)),
        norm=draw.choice((("group", {"num_groups": 8}), "batch", "instance")),
        upsample_mode=draw.choice(("deconv", "nontrainable", "pixelshuffle")),
        dropout_prob=draw.choice((None, 0.2)),
    )


def swinunetr(draw: Random, channels: int) -> nn.Module:
    return SwinUNETR(
        *(channels, 4),
        feature_size=12,
        depths=[draw.choice((1, 2)) for _ in range(4)],
        num_heads=[draw.choice((1, 2, 3)) for _ in range(4)],
        window_size=draw.choice((2, 3, [2, 3, 4], [4, 2, 3])),
        norm_name=draw.choice(("instance", INSTANCE, "batch")),
        use_v2=draw.choice((True, False)),
    )


def arunet(draw: Random, channels: int) -> nn.Module:
    hparams = ARUNetHparams(
        f_maps=draw.choice((2, 4, 6)),
        num_levels=draw.choice((2, 3)),
        use_attention=draw.choice((True, False)),
    )
    return build(ARUNetSettings(hparams=hparams), channels, 4).network


def nnunet(draw: Random, channels: int, residual: bool = False) -> nn.Module:
    stages = draw.choice((3, 4))
    blocks = [draw.choice((1, 2)) for _ in range(stages)]
    given: dict[str, Any] = {
        "input_channels": channels,
        "num_classes": 4,
        "n_stages": stages,
        "features_per_stage": widths(draw, stages),
        "conv_op": nn.Conv3d,
        "kernel_sizes": [kernel(draw) for _ in range(stages)],
        "strides": [1, *(halving(draw) for _ in range(stages - 1))],
        "n_conv_per_stage_decoder": [draw.choice((1, 2)) for _ in range(stages - 1)],
        "conv_bias": draw.choice((True, False)),
        "norm_op": draw.choice((nn.InstanceNorm3d, nn.BatchNorm3d)),
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "deep_supervision": False,
    }
    if residual:
        stem = draw.choice((None, 3))
        return ResidualEncoderUNet(**given, n_blocks_per_stage=blocks, stem_channels=stem)
    return PlainConvUNet(**given, n_conv_per_stage=blocks)


def residual_nnunet(draw: Random, channels: int) -> nn.Module:
    return nnunet(draw, channels, residual=True)


MAKERS: tuple[Callable[[Random, int], nn.Module], ...] = (
    monai_unet, unet, basicunet, dynunet, segresnet, swinunetr, arunet, nnunet, residual_nnunet,
)  # fmt: skip
PREFIXES = ("", "module.", "net.model.", "student.backbone.")


def made(maker: Callable[[Random, int], nn.Module], seed: int, channels: int) -> nn.Module:
    """A library's network of drawn structure and random tensors."""
    torch.manual_seed(seed)
    network = maker(Random(seed), channels).eval()
    with torch.no_grad():
        for tensor in {id(t): t for t in network.state_dict(keep_vars=True).values()}.values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return network


@pytest.mark.parametrize(
    ("maker", "seed"),
    [(m, seed) for m in MAKERS for seed in (SEEDS_OF_LARGE if m is swinunetr else SEEDS)],
    ids=lambda given: getattr(given, "__name__", str(given)),
)
def test_a_plain_state_dict_tells_its_network(
    maker: Callable[[Random, int], nn.Module], seed: int, tmp_path: Path
) -> None:
    channels = 1 + seed % 2
    theirs = made(maker, seed, channels)
    prefix = PREFIXES[seed % len(PREFIXES)]
    state = {f"{prefix}{name}": t for name, t in theirs.state_dict().items()}
    # Heads of self-supervised training lie beside the network, or beside its wrapper.
    state |= {"rotation_head.weight": torch.ones(4, 8), f"{prefix}contrastive.bias": torch.ones(3)}
    torch.save({"state_dict": state}, tmp_path / "plain.pt")
    checkpoint = read_source(tmp_path / "plain.pt")
    models = resolve_network(PretrainedSettings(), checkpoint.models, checkpoint.path)
    assert checkpoint.in_channels == channels
    ours = build(models, channels, 4)
    with torch.no_grad():
        pairs = pair_by_name(ours.network, checkpoint.tensors)
        for name, tensor in pairs.target.items():
            tensor.copy_(pairs.source[name])
        given = image(ours, channels).float()
        assert torch.equal(ours.network.eval()(given), theirs(given))


@pytest.mark.parametrize("maker", MAKERS, ids=lambda m: m.__name__)
def test_tensors_of_several_names_are_known_by_either(
    maker: Callable[[Random, int], nn.Module], tmp_path: Path
) -> None:
    theirs = made(maker, 3, 1)
    torch.save(theirs.state_dict(), tmp_path / "all.pt")
    # This library keeps one of the names.
    safetensors.torch.save_model(theirs, str(tmp_path / "one.safetensors"))
    found = [read_source(tmp_path / name) for name in ("all.pt", "one.safetensors")]
    assert found[0].models == found[1].models is not None


def refusal(path: Path, state: dict[str, torch.Tensor]) -> str:
    """What is said of weights that tell no network."""
    torch.save(state, path / "plain.pt")
    checkpoint = read_source(path / "plain.pt")
    assert checkpoint.models is None
    return str(unrecognised_network_error(checkpoint))


def changed(state: dict[str, torch.Tensor], **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """With tensors beside, or in place of, its own."""
    return state | {name.replace("__", "."): torch.zeros(s) for name, s in shapes.items()}


def test_an_encoder_alone_tells_its_network(tmp_path: Path) -> None:
    theirs = made(swinunetr, 2, 1).state_dict()
    state = {n.replace("linear", "fc"): t for n, t in theirs.items() if n.startswith("swinViT.")}
    torch.save(state | {"swinViT.contrastive_head.weight": torch.ones(8)}, tmp_path / "ssl.pt")
    checkpoint = read_source(tmp_path / "ssl.pt")
    models = resolve_network(PretrainedSettings(), checkpoint.models, checkpoint.path)
    ours = build(models, 1, 2)
    request = MatchRequest(load="encoder")
    receipt = load(models, ours, checkpoint, ("background", "A"), matching=request)
    assert receipt.count("encoder") == (len(state), len(state))
    assert torch.equal(
        ours.network.state_dict()["swinViT.layers3.0.blocks.0.mlp.linear1.weight"],
        theirs["swinViT.layers3.0.blocks.0.mlp.linear1.weight"],
    )


def test_names_of_wrappers_inside(tmp_path: Path) -> None:
    theirs = made(segresnet, 0, 1).state_dict()
    state = {f"net._orig_mod.{n.replace('1.conv', '1.module.conv')}": t for n, t in theirs.items()}
    torch.save(theirs, tmp_path / "plain.pt")
    torch.save(state, tmp_path / "wrapped.pt")
    found = [read_source(tmp_path / f"{name}.pt").models for name in ("plain", "wrapped")]
    assert found[0] == found[1] is not None


def test_weights_of_no_network_are_refused_with_the_nearest(tmp_path: Path) -> None:
    theirs = made(swinunetr, 0, 1).state_dict()
    state = {name: t for name, t in theirs.items() if "linear1" not in name}
    text = refusal(tmp_path, state)
    assert f"nearest: swinunetr, {len(state)} of {len(theirs)} tensors fit" in text
    assert "swinViT.layers1.0.blocks.0.mlp.linear1.weight: not in the checkpoint" in text
    assert "models=swinunetr models.feature_size=12 models.depths=" in text
    text = refusal(tmp_path, {"fc.weight": torch.ones(2, 2)})
    assert "none of unet, monai_unet, basicunet, dynunet, segresnet" in text
    assert "fc.weight" in text


def test_weights_of_other_layers_are_refused(tmp_path: Path) -> None:
    state = SegResNet(3, 8, 1, 4, blocks_down=(1, 1), blocks_up=(1,)).state_dict()
    text = refusal(tmp_path, changed(state, down_layers__1__gate__weight=(16, 1)))
    assert "not in that network: down_layers.1.gate.weight" in text
    text = refusal(tmp_path, changed(state, convInit__conv__weight=(8, 1, 5, 5, 5)))
    assert "convInit.conv.weight: (8, 1, 5, 5, 5) in the checkpoint" in text
    plain = UNet(3, 1, 4, (4, 8, 8), (2, 2), bias=False).state_dict()
    assert "model.0.conv.bias" in refusal(tmp_path, plain)
    wide = SwinUNETR(1, 4, feature_size=12, patch_size=4).state_dict()
    assert "swinViT.patch_embed.proj.weight" in refusal(tmp_path, wide)


def test_copies_that_differ_are_not_chosen_from(tmp_path: Path) -> None:
    copies = [made(segresnet, seed, 1).state_dict() for seed in (1, 1)]
    state = {f"{n}.{k}": t + n for n, copy in enumerate(copies) for k, t in copy.items()}
    torch.save(state, tmp_path / "plain.pt")
    checkpoint = read_source(tmp_path / "plain.pt")
    assert checkpoint.models is None
    with pytest.raises(WeightsError, match=r"finetuning\.key_prefix=0\."):
        unrecognised_network_error(checkpoint)
    chosen = read_source(tmp_path / "plain.pt", SourceOptions(key_prefix="1."))
    assert chosen.models is not None


def test_a_run_says_what_was_told_and_what_assumed(
    data: Path, tmp_path: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = SegResNet(
        *(3, 8, 1, 3), blocks_down=(1, 2, 1), blocks_up=(2, 1), upsample_mode="deconv"
    )
    torch.save({"model": theirs.state_dict()}, tmp_path / "plain.pt")
    overrides = [
        *(option for option in FAST if not option.startswith("models.")),
        *("datasets=tiny", f"datasets.main_path={data}", f"datasets.output_path={outputs}"),
        f"finetuning.pretrained={tmp_path / 'plain.pt'}",
    ]
    setup = plan(compose("finetune", [*overrides, "models=pretrained"], CONF), forecast=False)
    assert isinstance(setup.settings.models, SegResNetSettings)
    assert setup.settings.models.blocks_down == [1, 2, 1]
    assert setup.settings.models.upsample == "deconv"
    assert setup.transfer is not None
    assert {entry.status for entry in setup.transfer.receipt.entries} == {"loaded"}
    said = " ".join(capsys.readouterr().out.split())
    line = (
        "models=segresnet models.init_filters=8 models.blocks_down=[1,2,1] models.blocks_up=[2,1]"
    )
    assert line in said
    assert "they do not show norm=group" in said
    # A network chosen by hand that is another one is refused, with the right one.
    with pytest.raises(WeightsError, match=r"models=pretrained[\s\S]*models\.upsample=deconv"):
        plan(compose("finetune", [*overrides, "models=dynunet"], CONF), forecast=False)
