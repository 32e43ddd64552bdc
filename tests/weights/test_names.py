"""Names of tensors are brought together by one prefix off and one on."""

from __future__ import annotations

import pytest

from hsf_finetune.networks.build import build
from hsf_finetune.settings import UNetSettings
from hsf_finetune.weights.names import align

HERE = list(build(UNetSettings(channels=[4, 8, 8], strides=[2, 2]), 1, 2).network.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "net.model."])
def test_any_prefix_is_removed(prefix: str) -> None:
    rename = align([prefix + name for name in HERE] + ["loss.weight", "step"], HERE)
    assert (rename.removed, rename.added) == (prefix, "")
    assert [rename(prefix + name) for name in HERE] == HERE
    if prefix:
        assert rename("loss.weight") is None


def test_a_bare_trunk_finds_its_place() -> None:
    bare = [name.removeprefix("trunk.") for name in HERE if name.startswith("trunk.")]
    rename = align(["net." + name for name in bare], HERE)
    assert str(rename) == "'net.' removed, 'trunk.' added"


def test_a_smaller_unet_is_not_taken_for_the_inside_of_a_larger_one() -> None:
    deep = build(UNetSettings(channels=[2, 4, 8, 8], strides=[2, 2, 2]), 1, 2).network
    rename = align(HERE, deep.state_dict())
    assert str(rename) == ""


def test_nothing_in_common() -> None:
    assert str(align(["a.b", "c"], ["x.y", "z"])) == ""
