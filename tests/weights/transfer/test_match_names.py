"""Names of tensors are brought together by one prefix off and one on."""

from __future__ import annotations

import pytest
import torch

from hsf_finetune.config.settings import UNetSettings
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
