"""The network's weights are found among all that a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from hsf_finetune.config.settings import UNetSettings
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.state_dict import StateDict, find_state_dict, list_prefixes

PATH = Path("a.ckpt")
NETWORK = build(UNetSettings(channels=[4, 8, 8], strides=[2, 2]), 1, 2).network
STATE = NETWORK.state_dict()
RAW = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}


def _found(content: object, use_ema: bool = True) -> StateDict:
    return find_state_dict(content, PATH, use_ema)


def _put(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _is_raw(weights: StateDict) -> bool:
    return all(not tensor.any() for tensor in weights.tensors.values())


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["state_dict"],
        ["model"],
        ["model_state_dict"],
        ["network"],
        ["network_weights"],
        ["net"],
        ["ema"],
        ["ema_model"],
        ["model", "state_dict"],
        ["state_dict", "model"],
        ["ema", "shadow"],
        ["something_else"],
        ["something", "else"],
    ],
)
def test_wherever_they_lie(keys: list[str]) -> None:
    content: Any = STATE
    for key in reversed(keys):
        other = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
        content = other | {key: content}
    for use_ema in (True, False):
        found = _found(content, use_ema)
        assert not found.averaged
        names = list(found.tensors)
        own = [n for n in names if n.endswith(tuple(STATE))]
        assert len(own) == len(STATE) == len(names)


LAYOUTS: dict[str, dict[str, Any]] = {
    "two keys": {"state_dict": RAW, "ema": STATE},
    "timm": {"state_dict": RAW, "state_dict_ema": STATE},
    "nested": {"model": {"state_dict": RAW}, "model_ema": {"state_dict": STATE, "decay": 0.9}},
    "inside": {"model": {"state_dict": RAW, "ema": STATE}},
    "lightning": {"state_dict": STATE, "current_model_state": RAW},
    "names": {
        "state_dict": _put(RAW, "model.")
        | _put(STATE, "model_ema.module.")
        | {"loss.weight": RAW["head.bias"]}
    },
    "inner names": {"state_dict": _put(RAW, "net.online_model.") | _put(STATE, "net.ema_model.")},
    "ema first": {"ema": STATE, "epoch": 1, "model": RAW},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_averaged_or_raw(layout: str) -> None:
    averaged, raw = _found(LAYOUTS[layout]), _found(LAYOUTS[layout], use_ema=False)
    assert (averaged.averaged, raw.averaged) == (True, False)
    assert not _is_raw(averaged)
    assert _is_raw(raw)
    assert len(averaged.tensors) == len(STATE)
    together = LAYOUTS[layout].get("state_dict")
    if layout.endswith("names"):
        assert {*averaged.tensors, *averaged.left_out} == together.keys()
        assert {*raw.tensors, *raw.left_out} == together.keys()


def test_averaged_weights_alone_are_taken_whatever_was_asked() -> None:
    content = AveragedModel(NETWORK).state_dict()
    for use_ema in (True, False):
        found = _found({"ema": content}, use_ema)
        assert set(found.tensors) == {f"module.{n}" for n in STATE} | {"n_averaged"}
        assert not found.averaged


def test_a_layer_with_such_a_name_is_no_average() -> None:
    state = STATE | {"ema_gate.bias": torch.ones(1), "ema.weight": torch.ones(2)}
    for use_ema in (True, False):
        found = _found(state, use_ema)
        assert found.tensors.keys() == state.keys()
        assert found.left_out == ()


def test_a_network_in_parts() -> None:
    parts = {"encoder": {"a": torch.ones(1)}, "decoder": {"b": torch.ones(1)}}
    found = _found(parts | {"optimizer": {"c": torch.ones(1)}, "rng_states": {"d": torch.ones(1)}})
    assert set(found.tensors) == {"encoder.a", "decoder.b"}


@pytest.mark.parametrize(
    "content",
    [{}, 3, None, [torch.ones(1)], {"state_dict": {}}, {"optimizer": {"m": torch.ones(1)}}],
)
def test_no_weights(content: object) -> None:
    with pytest.raises(WeightsError, match=r"(?s)holds no weights.*a\.ckpt"):
        _found(content)


def test_prefixes_are_those_that_tell_something() -> None:
    names = dict.fromkeys(["net.model.a.w", "net.model.b.w", "net.model.b.x"])
    assert list_prefixes(names) == [
        ("net.", 3),
        ("net.model.", 3),
        ("net.model.b.", 2),
        ("net.model.a.", 1),
    ]
    assert list_prefixes({"w": None}) == []
