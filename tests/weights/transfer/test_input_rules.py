"""Input channels: by name, by position, or by a policy that someone has asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.settings import (
    DynUNetSettings,
    MonaiUNetSettings,
    NetworkSettings,
    RSUNetSettings,
)
from hsf_finetune.networks.build import channel_axes
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.transfer.input_rules import InputRequest, dropped_inputs, make_input_rules
from tests.closeness import NETWORK, assert_equal_up_to_rounding
from tests.weights.small_networks import (
    SOURCE,
    UNET,
    copied,
    every_network,
    fresh,
    image,
    load,
    logits,
    random_network,
    saved,
    unchanged,
)


def _shares(
    source: int | Sequence[str], target: int | Sequence[str], policy: Any = None
) -> list[tuple[float, ...]]:
    names = [None if isinstance(side, int) else side for side in (target, source)]
    counts = [side if isinstance(side, int) else len(side) for side in (source, target)]
    return [rule.shares for rule in make_input_rules(InputRequest({}, *names, policy), *counts)]


# ------------------------------------------------------------------------- rules
@pytest.mark.parametrize(
    ("target", "source", "policy", "expected"),
    [
        (2, 2, None, [(1, 0), (0, 1)]),
        (["T2", "T1"], ["T1", "T2"], None, [(0, 1), (1, 0)]),
        (["T2"], ["T1", "T2"], None, [(0, 1)]),
        (["T2"], ["T1"], None, [(1,)]),
        (["T1", "T2"], ["T1"], "zero", [(1,), (0,)]),
        (["T2", "T1"], ["T1"], "zero", [(0,), (1,)]),
        (["T1", "T2"], ["T1"], "mean", [(1 / 2,), (1 / 2,)]),
        (["A", "B", "C"], ["A", "B"], "mean", [(2 / 3, 0), (0, 2 / 3), (1 / 3, 1 / 3)]),
        (2, 1, "zero", [(1,), (0,)]),
        (3, 1, "mean", [(1 / 3,)] * 3),
        (1, 3, "mean", [(1, 1, 1)]),
        (["T1", "T2"], ["T1"], {"T2": "T1"}, [(1 / 2,), (1 / 2,)]),
        (["T1", "T2"], ["T1", "PD"], {"T2": "PD"}, [(1, 0), (0, 1)]),
        (["T1", "T2"], 1, {"T1": "zero", "T2": "0"}, [(0,), (1,)]),
        (2, 2, {"0": "1", "1": "0"}, [(0, 1), (1, 0)]),
    ],
)
def test_shares(
    target: int | list[str],
    source: int | list[str],
    policy: str | Mapping[str, str] | None,
    expected: list[tuple[float, ...]],
) -> None:
    assert _shares(source, target, policy) == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("target", [1, 2, 3, 4])
@pytest.mark.parametrize("source", [1, 2, 3])
@pytest.mark.parametrize("policy", ["mean", "zero"])
def test_every_channel_that_is_used_is_given_away_once(
    source: int, target: int, policy: str
) -> None:
    if policy == "zero" and target < source:
        pytest.skip("no channel is new")
    columns = [sum(column) for column in zip(*_shares(source, target, policy), strict=True)]
    assert columns == pytest.approx([1.0] * source)


@pytest.mark.parametrize(
    ("target", "source", "policy"),
    [
        (2, 1, None),
        (1, 2, None),
        (1, 2, "zero"),
        (["T1", "T2"], ["T1"], None),
        (["T1", "T2"], ["T1", "PD"], None),
        (["T1", "T2"], 1, None),
        (2, 2, {"0": "1"}),
    ],
)
def test_no_channel_is_repeated_or_lost_unasked(
    target: int | list[str], source: int | list[str], policy: Any
) -> None:
    with pytest.raises(ConfigError, match=r"finetuning\.input_channels=mean") as caught:
        _shares(source, target, policy)
    fewer = isinstance(source, int) and isinstance(target, int) and target <= source
    assert ("finetuning.input_channels=zero" in str(caught.value)) != fewer


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"T2w": "T1"}, "'T2w' is no input channel of the data(?s:.*)did you mean 'T2'"),
        ({"T2": "T1w"}, "'T1w' is no channel of the checkpoint(?s:.*)did you mean 'T1'"),
        ({"T1": "zero", "T2": "zero"}, "uses no channel of the checkpoint"),
    ],
)
def test_unknown_channels(policy: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _shares(["T1"], ["T1", "T2"], policy)


def test_names_are_one_for_each_channel_of_the_checkpoint() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint's 2 input channels(?s:.*)\[T1\]"):
        make_input_rules(InputRequest({}, ["T1"], ["T1"]), 2, 1)


def test_lines_say_what_is_done() -> None:
    rules = make_input_rules(
        InputRequest({}, ["T1", "T2", "PD"], ["T1"], {"T2": "T1", "PD": "zero"}), 1, 3
    )
    assert [rule.line() for rule in rules] == [
        "copied (x 0.5)",
        "copied of T1 (x 0.5)",
        "zero - starts with zero weights",
    ]
    (rule,) = make_input_rules(InputRequest({}, ["T1"], None, "mean"), 2, 1)
    assert rule.line() == "mean - 1 x 0 + 1 x 1"
    assert dropped_inputs(make_input_rules(InputRequest({}, ["B"], ["A", "B"]), 2, 1)) == (0,)


# ---------------------------------------------------------------------- networks
@every_network
def test_only_weights_that_read_the_image_count_channels(settings: NetworkSettings) -> None:
    anatomy = fresh(settings, SOURCE, 3)
    axes = channel_axes(settings, 3, len(SOURCE))
    blocks, state = anatomy.tensor_block(), anatomy.network.state_dict()
    assert axes
    assert "head" not in {blocks[name] for name in axes}
    assert {(own, state[name].shape[1]) for name, own in axes.items()} == {((1,), 3)}


def test_norms_of_the_image_are_averaged(tmp_path: Path) -> None:
    settings = RSUNetSettings(channels=[2, 3])
    test_zero_leaves_the_function_of_the_old_channels(tmp_path, settings)
    target = fresh(settings, SOURCE, 3)
    source = random_network(settings, 4, seed=1, in_channels=2)
    load(settings, target, saved(tmp_path, source, SOURCE), SOURCE, channels=3, policy="mean")
    name = "input_conv.pre.0.norm.running_var"
    means = source.network.state_dict()[name].mean().expand(3)
    assert_equal_up_to_rounding(target.network.state_dict()[name], means)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_shortcut_that_comes_and_goes_with_the_count_is_seen(channels: int) -> None:
    for settings in (
        MonaiUNetSettings(channels=[4, 8, 8], strides=[1, 2]),
        DynUNetSettings(channels=[4, 8, 8], residual=True),
    ):
        state = fresh(settings, SOURCE, channels).network.state_dict()
        start = ("model.0.conv.unit0", "model.0.residual", "input_block.conv1", "input_block.conv3")
        reading = {n for n, t in state.items() if n.startswith(start) and t.dim() == 5}
        assert len(reading) == (1 if channels == 4 else 2)
        axes = channel_axes(settings, channels, len(SOURCE))
        assert {n for n in axes if not n.startswith("skip_layers")} == reading


@every_network
def test_zero_leaves_the_function_of_the_old_channels(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    source = random_network(settings, 4, seed=1)
    checkpoint = saved(tmp_path, source, SOURCE, channel_names=["T1"])
    target = fresh(settings, SOURCE, 2)
    names = ("FLAIR", "T1")
    receipt = load(
        settings,
        target,
        checkpoint,
        SOURCE,
        channels=2,
        names=names,
        source_names=["T1"],
        policy="zero",
    )
    both = image(target, 2)
    assert_equal_up_to_rounding(logits(target, both), logits(source, both[:, 1:]), NETWORK)
    assert receipt.share_loaded == 1
    remapped = {entry.name for entry in receipt.entries if entry.status == "remapped"}
    assert remapped == set(channel_axes(settings, 2, 4)) & {e.name for e in receipt.entries}


@every_network
def test_channels_of_the_same_names_in_another_order_are_permuted(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    source = random_network(settings, 4, seed=1, in_channels=3)
    checkpoint = saved(tmp_path, source, SOURCE)
    target = fresh(settings, SOURCE, 3)
    load(
        settings,
        target,
        checkpoint,
        SOURCE,
        channels=3,
        names=("C", "A", "B"),
        source_names=("A", "B", "C"),
    )
    x = image(target, 3)
    assert_equal_up_to_rounding(logits(target, x), logits(source, x[:, [1, 2, 0]]), NETWORK)


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1)])
def test_mean_keeps_the_response_of_one_or_to_one(tmp_path: Path, old: int, new: int) -> None:
    _mean_keeps_the_response(tmp_path, UNET, old, new)


@every_network
def test_mean_keeps_the_response_to_channels_that_are_alike(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    _mean_keeps_the_response(tmp_path, settings, 2, 3)


def _mean_keeps_the_response(tmp_path: Path, settings: NetworkSettings, old: int, new: int) -> None:
    source = random_network(settings, 4, seed=1, in_channels=old)
    checkpoint = saved(tmp_path, source, SOURCE)
    target = fresh(settings, SOURCE, new)
    load(settings, target, checkpoint, SOURCE, channels=new, policy="mean")
    x = image(target)
    # The network computes in double, but thirds of the weights are rounded to single.
    assert_equal_up_to_rounding(
        logits(target, x.expand(-1, new, -1, -1, -1)),
        logits(source, x.expand(-1, old, -1, -1, -1)),
        precision=torch.float32,
    )


@every_network
def test_another_count_stops_before_anything_is_loaded(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    checkpoint = saved(tmp_path, random_network(settings, 4, seed=1), SOURCE)
    target = fresh(settings, SOURCE, 2)
    before = copied(target)
    with pytest.raises(ConfigError, match="no counterpart for input channel 0, 1"):
        load(settings, target, checkpoint, SOURCE, channels=2)
    assert unchanged(target, before)


def test_the_receipt_says_what_became_of_the_channels(tmp_path: Path) -> None:
    source = random_network(UNET, 4, seed=1, in_channels=2)
    checkpoint = saved(tmp_path, source, SOURCE)
    receipt = load(
        UNET,
        fresh(UNET, SOURCE, 2),
        checkpoint,
        SOURCE,
        channels=2,
        names=["T2", "PD"],
        source_names=["T1", "T2"],
        policy={"PD": "zero"},
    )
    assert [(rule.target, rule.sources) for rule in receipt.inputs] == [("T2", ("T2",)), ("PD", ())]
    assert receipt.dropped_inputs == ("T1",)
    assert [rule["shares"] for rule in receipt.to_dict()["inputs"]] == [[0.0, 1.0], [0.0, 0.0]]


def test_names_that_contradict_the_checkpoint(tmp_path: Path) -> None:
    source = random_network(UNET, 4, seed=1)
    checkpoint = saved(tmp_path, source, SOURCE, channel_names=["T1"])
    if checkpoint.channel_names is None:
        pytest.fail("channel_names are not read")
    with pytest.raises(ConfigError, match="source_channels contradicts the checkpoint"):
        load(UNET, fresh(UNET, SOURCE), checkpoint, SOURCE, source_names=["T2"])
