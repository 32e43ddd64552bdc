"""Names of tensors are brought together: prefixes off and on, wrappers and spellings aside."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from hsf_finetune.config.settings import SegResNetSettings, SwinUNETRSettings, UNetSettings
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.transfer.match_names import find_prefix_change, pair_by_name

NETWORK = build(UNetSettings(channels=[4, 8, 8], strides=[2, 2]), 1, 2).network
NAMES = list(NETWORK.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "net.model."])
def test_any_prefix_is_removed(prefix: str) -> None:
    change = find_prefix_change([prefix + name for name in NAMES] + ["loss.weight", "step"], NAMES)
    assert (change.removed, change.added) == (prefix, "")
    assert [change(prefix + name) for name in NAMES] == NAMES
    if prefix:
        assert change("loss.weight") is None


def test_a_bare_trunk_finds_its_place() -> None:
    bare = [name.removeprefix("trunk.") for name in NAMES if name.startswith("trunk.")]
    change = find_prefix_change(["net." + name for name in bare], NAMES)
    assert str(change) == "'net.' removed, 'trunk.' added"


def test_a_smaller_unet_is_not_taken_for_the_inside_of_a_larger_one() -> None:
    deep = build(UNetSettings(channels=[2, 4, 8, 8], strides=[2, 2, 2]), 1, 2).network
    change = find_prefix_change(NAMES, deep.state_dict())
    assert str(change) == ""


def test_nothing_in_common() -> None:
    assert str(find_prefix_change(["a.b", "c"], ["x.y", "z"])) == ""


def _copies(first: str, second: str, factor: float) -> dict[str, torch.Tensor]:
    state = NETWORK.state_dict()
    return {first + name: tensor for name, tensor in state.items()} | {
        second + name: tensor * factor + (factor - 1) for name, tensor in state.items()
    }


def test_two_networks_in_one_file_are_not_chosen_between() -> None:
    with pytest.raises(WeightsError, match=r"(?s)student\. .*teacher\..*key_prefix=student\."):
        pair_by_name(NETWORK, _copies("student.", "teacher.", 2))


def test_one_network_under_two_names_is_one() -> None:
    pairs = pair_by_name(NETWORK, _copies("net.", "loss.net.", 1))
    assert pairs.source.keys() == pairs.target.keys()
    assert pairs.renamed == "'net.' removed"


def test_the_names_as_they_are_come_first() -> None:
    pairs = pair_by_name(NETWORK, _copies("", "teacher.", 2))
    assert pairs.renamed == ""
    assert len(pairs.unused) == len(pairs.target)


SEGRESNET = build(SegResNetSettings(init_filters=8), 1, 2).network
SWIN = SwinUNETRSettings(feature_size=12, num_heads=[1, 2, 2, 2], window_size=3)
SWINUNETR = build(SWIN, 1, 2).network


def _parts(name: str) -> str:
    """A network that a program holds in three parts."""
    part = {"conv_final": "seg_head.", "up": "parts.decoder."}
    return next((p for b, p in part.items() if name.startswith(b)), "backbone.0.") + name


@pytest.mark.parametrize(
    ("network", "rename"),
    [
        (SEGRESNET, lambda n: n.replace("_layers.", "_layers._orig_mod.")),
        (SEGRESNET, lambda n: "_fsdp_wrapped_module." + n.replace("s.1.", "s.1.module.net.")),
        (SEGRESNET, lambda n: n.replace("s.2.", "s.2._checkpoint_wrapped_module.")),
        (SEGRESNET, lambda n: "model." + n.replace("up_", "net.up_")),
        (SEGRESNET, _parts),
        (SWINUNETR, lambda n: n.replace("mlp.linear", "mlp.fc")),
        (SWINUNETR, lambda n: "module." + n.replace("swinViT.", "swin_vit.")),
        (SWINUNETR, lambda n: n.replace("swinViT", "swin_vit").replace("mlp.linear", "mlp.fc")),
    ],
)
def test_every_tensor_is_found(network: torch.nn.Module, rename: Callable[[str], str]) -> None:
    state = network.state_dict()
    pairs = pair_by_name(network, {rename(name): tensor for name, tensor in state.items()})
    assert pairs.source.keys() == state.keys()
    assert all(tensor is state[name] for name, tensor in pairs.source.items())
    assert pairs.renamed
    assert not pairs.unused


def test_an_encoder_of_monais_autoencoders_is_found() -> None:
    state = {n: t for n, t in SWINUNETR.state_dict().items() if n.startswith("swinViT.")}
    given = {re.sub(r"(layers\d)\.0\.", r"\1.0.0.", f"encoder{n[7:]}"): state[n] for n in state}
    beside = {"encoder.mask_token": torch.ones(1), "encoder.norm.weight": torch.ones(1)}
    pairs = pair_by_name(SWINUNETR, given | beside)
    assert pairs.source.keys() == state.keys()
    assert set(pairs.unused) == set(beside)
    assert not any(place.module for place in pairs.places.values())


@pytest.mark.parametrize("other", ["down_layers.1.", "lower.1.", "up_layers.9."])
def test_what_is_left_over_fills_no_gap_of_another_name(other: str) -> None:
    state = SEGRESNET.state_dict()
    given = {name.replace("up_layers.1.", other): tensor for name, tensor in state.items()}
    pairs = pair_by_name(SEGRESNET, state | given)
    assert pairs.source.keys() == state.keys()
    gone = {n: t for n, t in (given | state).items() if not n.startswith("up_layers.1.")}
    pairs = pair_by_name(SEGRESNET, gone)
    assert not any(name.startswith("up_layers.1.") for name in pairs.source)
