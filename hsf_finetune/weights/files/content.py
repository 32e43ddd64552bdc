"""Which of the many things in a checkpoint are the network's weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.unreadable import EXPECTED
from hsf_finetune.weights.transfer.names import align

_NESTS = (
    "state_dict",
    "model_state_dict",
    "network_state_dict",
    "net_state_dict",
    "model",
    "network",
    "net",
    "network_weights",
    "weights",
    "params",
    "module",
)
_AVERAGED_NESTS = (
    "ema",
    "ema_model",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_state_dict_ema",
    "ema_model_state_dict",
    "ema_weights",
    "params_ema",
    "shadow",
)
_RAW_BESIDE_AVERAGED = "current_model_state"
"""Where Lightning's weight averaging puts the raw weights; state_dict has the averaged."""
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|callback|loop|hyper|hparams|rng", re.IGNORECASE)
_AVERAGED_NAME = re.compile(r"(?:^|_)(?:ema|swa|averaged)(?:_|$)", re.IGNORECASE)
_DEEPEST = 2


@dataclass(frozen=True)
class Weights:
    """A network's tensors, out of a file.

    Args:
        tensors: name -> tensor.
        key: where in the file they were, such as `model.state_dict`; empty at the top.
        averaged: whether they are averaged (EMA) weights, taken instead of raw ones.
        left_out: names beside them that were not taken.
    """

    tensors: dict[str, torch.Tensor]
    key: str
    averaged: bool = False
    left_out: tuple[str, ...] = ()


def find_weights(content: object, path: Path, use_ema: bool = True) -> Weights:
    """The weights in a file, wherever programs usually put them.

    These are the top level, or state_dict, model, network and the like, two deep; else
    all that is nested, with the names of the parts before those of the tensors.

    Args:
        content: what was read.
        path: the file.
        use_ema: averaged weights where the file has both, or the raw ones.

    Raises:
        WeightsError: there are none.
    """
    state = _state(content)
    places = [] if state is None else list(_places(state))
    if not places:
        raise no_weights(path, _described(content))
    suited = [place for place in places if place.averaged == use_ema] or places
    both = len({place.averaged for place in places}) == 2
    return _one_copy(replace(suited[0], averaged=both and use_ema), use_ema)


def below_prefix(weights: Weights, prefix: str, path: Path) -> Weights:
    """The weights whose names begin with a prefix, without it.

    Args:
        weights: of the file.
        prefix: such as `model.`; the point at its end may be left out.
        path: the file.

    Raises:
        ConfigError: no name begins with it; lists the prefixes that there are.
    """
    prefix = prefix.rstrip(".") + "."
    taken = {n[len(prefix) :]: t for n, t in weights.tensors.items() if n.startswith(prefix)}
    if not taken:
        known = [f"{name} ({count} tensors)" for name, count in prefixes(weights.tensors)]
        raise ConfigError(
            f"no tensor's name begins with finetuning.key_prefix={prefix}",
            file=path,
            found="names such as " + ", ".join(list(weights.tensors)[:3]),
            expected="one of " + ", ".join(known) if known else "no prefix at all",
            fix="leave finetuning.key_prefix out: prefixes are found by themselves",
        )
    others = tuple(name for name in weights.tensors if not name.startswith(prefix))
    return replace(weights, tensors=taken, left_out=(*weights.left_out, *others))


def prefixes(names: Mapping[str, object]) -> list[tuple[str, int]]:
    """What names begin with, and how many do: the first part, or the first ones all share."""
    counts: list[tuple[str, int]] = []
    base = ""
    while True:
        below = Counter(
            base + name[len(base) :].partition(".")[0] + "."
            for name in names
            if name.startswith(base) and "." in name[len(base) :]
        )
        counts += below.most_common(12)
        if len(below) != 1 or base.count(".") > 4:
            return counts
        base = next(iter(below))


def no_weights(path: Path, found: str) -> WeightsError:
    """The error for a file that can be read, but holds no network's weights."""
    return WeightsError("the file holds no weights", file=path, found=found, expected=EXPECTED)


# -------------------------------------------------------------------- internals
def _state(value: object) -> Mapping[str, Any] | None:
    """A dictionary, or the state dict of a whole network that was trusted; else None."""
    if isinstance(value, torch.nn.Module):
        return dict(value.state_dict())
    return value if isinstance(value, Mapping) else None


def _places(content: Mapping[str, Any]) -> Iterator[Weights]:
    """Every place that holds weights, the likeliest first."""
    found = list(_known_places(content, "", False, 0))
    if found:
        yield from found
        return
    tensors = dict(_flat(content, "", 0))
    if tensors:
        yield Weights(tensors, "", False)


def _known_places(
    content: Mapping[str, Any], key: str, averaged: bool, depth: int
) -> Iterator[Weights]:
    raw = _state(content.get(_RAW_BESIDE_AVERAGED))
    nests = [(name, averaged or (raw is not None and name == "state_dict")) for name in _NESTS]
    nests += [(_RAW_BESIDE_AVERAGED, False)]
    nests += [(name, True) for name in _AVERAGED_NESTS]
    nested = False
    for name, is_averaged in nests:
        inner = _state(content.get(name))
        if inner is None or depth == _DEEPEST:
            continue
        for place in _known_places(inner, f"{key}.{name}".lstrip("."), is_averaged, depth + 1):
            nested = True
            yield place
    own = _tensors(content)
    if own and not nested:
        yield Weights(own, key, averaged)


def _tensors(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {str(k): v.detach() for k, v in content.items() if isinstance(v, torch.Tensor)}


def _flat(content: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """The tensors of a network that was saved in parts, such as encoder and decoder."""
    for name, tensor in _tensors(content).items():
        yield prefix + name, tensor
    for name, value in content.items():
        inner = _state(value)
        if inner is not None and depth < _DEEPEST and not _NO_WEIGHTS.search(str(name)):
            yield from _flat(inner, f"{prefix}{name}.", depth + 1)


def _one_copy(weights: Weights, use_ema: bool) -> Weights:
    """The averaged or the raw weights, where one state dict holds both side by side.

    Such as `model.conv.weight` beside `model_ema.module.conv.weight`.
    """
    averaged = {name: rest for name in weights.tensors if (rest := _below_average(name))}
    raw = sorted(weights.tensors.keys() - averaged.keys())
    rests = set(averaged.values())
    rename = align(raw, rests)
    twins = sum(rename(name) in rests for name in raw)
    # Beside the raw network there may be losses and the like, but not much of them.
    if not twins or twins < max(len(averaged) / 2, len(raw) / 3):
        return weights
    keep = averaged.keys() if use_ema else set(raw)
    return replace(
        weights,
        tensors={name: tensor for name, tensor in weights.tensors.items() if name in keep},
        averaged=use_ema,
        left_out=tuple(name for name in weights.tensors if name not in keep),
    )


def _below_average(name: str) -> str:
    """What follows `ema_model.` and the like in a name, or in its second part; else nothing."""
    parts = name.split(".")
    for number, part in enumerate(parts[:2], start=1):
        if _AVERAGED_NAME.search(part):
            return ".".join(parts[number:])
    return ""


def _described(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    keys = ", ".join(str(key) for key in list(content)[:12]) or "nothing"
    return f"a dictionary of: {keys}"
