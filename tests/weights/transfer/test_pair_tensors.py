"""Tensors whose names differ: the user's map, and order and shape where someone asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import class_axes
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.transfer.key_map import map_names
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from tests.weights.small_networks import (
    SETTINGS,
    SOURCE,
    UNET,
    copied,
    every_network,
    fresh,
    load,
    logits,
    random_network,
    unchanged,
)

TARGET = ("trunk.a.weight", "trunk.a.bias", "trunk.b.weight", "head.weight")
ORDER = MatchRequest("order")


# --------------------------------------------------------------------------- map
def test_names_and_the_longest_prefix_decide() -> None:
    source = ("net.a.weight", "net.a.bias", "net.b.weight", "out.w", "step")
    key_map = {"net.": "trunk.", "net.b.": "trunk.a.", "net.a.weight": "trunk.b.weight"}
    assert map_names(key_map | {"out.w": "head.weight"}, source, TARGET) == {
        "net.a.bias": "trunk.a.bias",
        "net.b.weight": "trunk.a.weight",
        "net.a.weight": "trunk.b.weight",
        "out.w": "head.weight",
    }
    assert map_names({"": "trunk."}, ("a.weight", "step"), TARGET) == {"a.weight": "trunk.a.weight"}


def test_a_star_stands_for_the_same_text_on_both_sides() -> None:
    source = ("enc.a.conv.weight", "enc.a.conv.bias", "enc.b.conv.weight", "out.weight")
    key_map = {"enc.*.conv.*": "trunk.*.*", "enc.b.conv.*": "head.*"}
    assert map_names(key_map, source, TARGET) == {
        "enc.a.conv.weight": "trunk.a.weight",
        "enc.a.conv.bias": "trunk.a.bias",
        "enc.b.conv.weight": "head.weight",
    }


@pytest.mark.parametrize(
    ("key_map", "said"),
    [
        ({"out.wieght": "head.weight"}, "leads to nothing in the checkpoint(?s:.*)out.weight"),
        ({"out.weight": "haed.weight"}, "leads to nothing in the network(?s:.*)head.weight"),
        ({"nt.": "trunk."}, "no name begins with 'nt.'(?s:.*)net.a"),
        ({"net.": "trnk."}, "leads to nothing in the network(?s:.*)trunk.a"),
        ({"net.": "trunk"}, r"a prefix with a name(?s:.*)\{net.: trunk.\}"),
        ({"net.*": "trunk.weight"}, r"another number of stars(?s:.*)net.\*: trunk.weight"),
        ({"nt.*": "trunk.*"}, r"no name fits 'nt.\*'"),
        ({"out.weight": "head.weight", "net.b.weight": "head.weight"}, "several tensors to 'head"),
        ({"x": "y", "z": "w"}, "several entries(?s:.*)'x'(?s:.*)'z'"),
    ],
)
def test_an_entry_that_leads_nowhere(key_map: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        map_names(key_map, ("net.a.weight", "net.b.weight", "out.weight"), TARGET)


def _renamed(path: Path, anatomy: Anatomy, old: str, new: str) -> Checkpoint:
    state = {k.replace(old, new): v for k, v in anatomy.network.state_dict().items()}
    torch.save(state, path / "renamed.pt")
    return read_checkpoint(path / "renamed.pt")


def test_the_map_helps_names_out(tmp_path: Path) -> None:
    source, target = random_network(UNET, 4, seed=1), fresh(UNET, SOURCE)
    checkpoint = _renamed(tmp_path, source, "head.", "classifier.")
    matching = MatchRequest(key_map={"classifier.": "head."})
    receipt = load(UNET, target, checkpoint, SOURCE, matching=matching, source_classes=SOURCE)
    assert torch.equal(logits(source), logits(target))
    by_map = {entry.origin for entry in receipt.entries if entry.how == "key_map"}
    assert by_map == {"classifier.weight", "classifier.bias"}
    assert not receipt.unused


def test_the_map_wins_over_the_name(tmp_path: Path) -> None:
    source, target = random_network(UNET, 4, seed=1), fresh(UNET, SOURCE)
    state = source.network.state_dict()
    torch.save(state | {"better.bias": state["head.bias"] + 1}, tmp_path / "a.pt")
    receipt = load(
        UNET,
        target,
        read_checkpoint(tmp_path / "a.pt"),
        SOURCE,
        matching=MatchRequest(key_map={"better.bias": "head.bias"}),
    )
    assert torch.equal(target.network.state_dict()["head.bias"], state["head.bias"] + 1)
    assert receipt.unused == ("head.bias",)


# ------------------------------------------------------------------------- order
def _nameless(path: Path, anatomy: Anatomy, leave_out: str | None = None) -> Checkpoint:
    state = anatomy.network.state_dict()
    kept = [v for k, v in state.items() if leave_out is None or not k.startswith(leave_out)]
    torch.save({f"t{n}": tensor for n, tensor in enumerate(kept)}, path / "nameless.pt")
    return read_checkpoint(path / "nameless.pt")


@every_network
def test_order_is_offered_and_never_silent(tmp_path: Path, settings: NetworkSettings) -> None:
    source, target = random_network(settings, 4, seed=1), fresh(settings, SOURCE)
    checkpoint, before = _nameless(tmp_path, source), copied(target)
    with pytest.raises(WeightsError, match=r"finetuning.match=order\n(?s:.*)t0 -> "):
        load(settings, target, checkpoint, SOURCE)
    assert unchanged(target, before)
    receipt = load(settings, target, checkpoint, SOURCE, matching=ORDER)
    assert torch.equal(logits(source), logits(target))
    assert {entry.how for entry in receipt.entries} == {"order"}
    assert {entry.status for entry in receipt.entries} == {"loaded"}
    assert not receipt.unused


def test_order_goes_on_to_other_classes_and_channels(tmp_path: Path) -> None:
    source = random_network(UNET, 4, seed=1, in_channels=2)
    classes = ("background", "C", "A", "new")
    target = fresh(UNET, classes)
    receipt = load(
        UNET,
        target,
        _nameless(tmp_path, source),
        classes,
        matching=ORDER,
        source_classes=SOURCE,
        policy="mean",
    )
    assert receipt.share_loaded == 1
    assert [rule.channels for rule in receipt.channels] == [(0,), (3,), (1,), (0,)]


def test_order_does_without_the_head(tmp_path: Path) -> None:
    source, target = random_network(UNET, 4, seed=1), fresh(UNET, SOURCE)
    receipt = load(UNET, target, _nameless(tmp_path, source, "head"), SOURCE, matching=ORDER)
    assert receipt.share_loaded == 1
    assert {entry.name for entry in receipt.entries if entry.status == "fresh"} == set(
        class_axes(UNET, 1, 4)
    )


def test_another_network_is_not_taken_by_order(tmp_path: Path) -> None:
    checkpoint = _nameless(tmp_path, random_network(SETTINGS[-1], 4, seed=1))
    target = fresh(UNET, SOURCE)
    with pytest.raises(
        WeightsError, match=r"tensor 3 is t2 .* in the checkpoint and trunk\..* in the network"
    ):
        load(UNET, target, checkpoint, SOURCE, matching=ORDER)
    with pytest.raises(WeightsError) as caught:
        load(UNET, target, checkpoint, SOURCE)
    assert "match=order" not in str(caught.value)


def test_a_bias_is_not_taken_for_a_weight_of_its_shape(tmp_path: Path) -> None:
    source, target = random_network(UNET, 4, seed=1), fresh(UNET, SOURCE)
    state = source.network.state_dict()
    swapped = {"weight": "bias", "bias": "weight"}
    names = [f"t{n}.{k.rpartition('.')[2]}" for n, k in enumerate(state)]
    first = next(n for n, k in enumerate(state) if "norm" in k.lower() or ".N." in k)
    for n in (first, first + 1):
        stem, _, last = names[n].rpartition(".")
        names[n] = f"{stem}.{swapped[last]}"
    torch.save(dict(zip(names, state.values(), strict=True)), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=f"tensor {first + 1} is t{first}.bias"):
        load(UNET, target, read_checkpoint(tmp_path / "a.pt"), SOURCE, matching=ORDER)
