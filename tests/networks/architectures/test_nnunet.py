"""nnU-Net's networks: which way they look, what belongs to which block, what is refused."""

from __future__ import annotations

import sys
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from nibabel import orientations
from pydantic import ValidationError

from hsf_finetune.config.settings import NnUNetSettings
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import ConfigError

EVERY_ORIENTATION = [
    "".join(letters) for pairs in permutations(("RL", "AP", "SI")) for letters in product(*pairs)
]
SMALL: dict[str, Any] = {
    "features_per_stage": [2, 3, 3],
    "kernel_sizes": [[1, 3, 3], 3, 3],
    "strides": [1, [1, 2, 2], [2, 1, 2]],
}


@torch.no_grad()
@pytest.mark.parametrize("orientation", EVERY_ORIENTATION)
def test_images_are_turned_as_nibabel_turns_them(orientation: str) -> None:
    torch.manual_seed(0)
    plain = build(NnUNetSettings(**SMALL), 1, 2).network.eval()
    turned = build(NnUNetSettings(**SMALL, orientation=orientation), 1, 2)
    turned.network.eval().load_state_dict(plain.state_dict())
    ras = orientations.axcodes2ornt("RAS")
    there = orientations.ornt_transform(ras, orientations.axcodes2ornt(orientation))
    back = orientations.ornt_transform(orientations.axcodes2ornt(orientation), ras)
    image = torch.randn(8, 4, 12).numpy()
    stored = np.ascontiguousarray(orientations.apply_orientation(image, there))
    logits = plain(torch.from_numpy(stored)[None, None])[0]
    expected = [orientations.apply_orientation(c.numpy(), back) for c in logits]
    found = turned.network(torch.from_numpy(image)[None, None])[0]
    assert np.array_equal(np.stack(expected), found.numpy())


@pytest.mark.parametrize(
    ("orientation", "divisor"),
    [("RAS", (2, 2, 4)), ("SAR", (4, 2, 2)), ("PIL", (4, 2, 2)), ("SLA", (2, 4, 2))],
)
def test_the_divisor_is_that_of_our_axes(orientation: str, divisor: tuple[int, int, int]) -> None:
    assert build(NnUNetSettings(**SMALL, orientation=orientation), 1, 2).divisor == divisor


def test_what_encoder_and_decoder_share_belongs_to_the_encoder() -> None:
    owner = build(NnUNetSettings(architecture="ResidualEncoderUNet", **SMALL), 1, 2).tensor_block()
    for name, block in owner.items():
        if name.startswith("decoder.encoder."):
            assert block == owner[name.removeprefix("decoder.")]
            assert block.startswith("encoder") or block == "bottleneck"
    assert owner["encoder.stem.convs.0.conv.weight"] == "encoder1"


@torch.no_grad()
def test_deep_supervision_is_of_all_levels_but_the_deepest() -> None:
    settings = NnUNetSettings(features_per_stage=[2, 3, 4, 4], deep_supervision=True)
    anatomy = build(settings, 1, 3)
    weights = {n for n in anatomy.network.state_dict() if "seg_layers" in n and "weight" in n}
    assert weights == {"decoder.seg_layers.1.weight", "decoder.seg_layers.2.weight"}
    image = torch.randn(1, 1, 16, 16, 16)
    levels = anatomy.network.train()(image)
    assert torch.equal(levels[:, 0], anatomy.network.eval()(image))
    coarse = levels[0, 1]
    assert torch.equal(coarse[:, ::2, ::2, ::2], coarse[:, 1::2, 1::2, 1::2])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"strides": [1, 2]}, "strides needs 4 entries"),
        ({"strides": [2, 2, 2, 2]}, "first of strides must be 1"),
        ({"kernel_sizes": [3, 3, [3, 2, 3], 3]}, "odd"),
        ({"n_conv_per_stage_decoder": [2, 2, 2, 2]}, "n_conv_per_stage_decoder needs 3"),
        ({"orientation": "RAP"}, "one of S and I"),
        ({"orientation": "RASP"}, "one of S and I"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        NnUNetSettings(**wrong)


def test_arguments_that_layers_do_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="epsilon"):
        build(NnUNetSettings(norm_op_kwargs={"epsilon": 0.1}), 1, 2)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dynamic_network_architectures.architectures.unet", None)
    with pytest.raises(ConfigError, match=r"pip install 'hsf-finetune\[nnunet\]'"):
        build(NnUNetSettings(), 1, 2)
