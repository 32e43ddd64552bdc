"""Finds a network's weights among the many things that a checkpoint holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.stand_in import StandIn, is_tensor_stand_in
from hsf_finetune.weights.files.unreadable import EXPECTED
from hsf_finetune.weights.transfer.match_names import find_prefix_change

_KEYS = (
    "state_dict", "model_state_dict", "network_state_dict", "net_state_dict", "model", "network",
    "net", "network_weights", "weights", "params", "module",
)  # fmt: skip
_AVERAGED_KEYS = (
    "ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "model_state_dict_ema",
    "ema_model_state_dict", "ema_weights", "params_ema", "shadow",
)  # fmt: skip
_RAW_BESIDE_AVERAGED = "current_model_state"
"""Where Lightning's weight averaging puts the raw weights; state_dict has the averaged."""
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|callback|loop|hyper|hparams|rng", re.IGNORECASE)
_AVERAGED_NAME = re.compile(r"(?:^|_)(?:ema|swa|averaged)(?:_|$)", re.IGNORECASE)
_MAX_DEPTH = 2
_NOT_DENSE = torch.empty(0, device="meta")
"""Stands for a sparse, quantised or repeated tensor; `check_values` refuses it."""


@dataclass(frozen=True)
class StateDict:
    """A network's tensors, out of a file.

    Args:
        tensors: name -> tensor.
        key: where in the file they were, such as `model.state_dict`; empty at the top.
        averaged: whether they are averaged (EMA) weights, taken instead of raw ones.
        left_out: names beside them that were not taken.
    """

    tensors: dict[str, torch.Tensor]
    key: str = ""
    averaged: bool = False
    left_out: tuple[str, ...] = ()


def find_state_dict(content: object, path: Path, use_ema: bool = True) -> StateDict:
    """The weights in a file, wherever programs usually put them.

    These are the top level, or state_dict, model, network and the like, two deep; else
    all that is nested, with the names of the parts before those of the tensors.

    Raises:
        WeightsError: the file holds no weights.
    """
    mapping = _mapping(content)
    found = list(_below_known_keys(mapping or {}, "", False, {}))
    if not found and (tensors := dict(_nested_tensors(mapping or {}, "", 0, {}))):
        found = [StateDict(tensors)]
    if not found:
        kind = f"a {type(content).__name__}"
        if isinstance(content, Mapping):
            kind = "a dictionary of: " + (", ".join(map(str, list(content)[:12])) or "nothing")
        raise no_weights_error(path, kind)
    suited = [one for one in found if one.averaged == use_ema] or found
    both = len({one.averaged for one in found}) == 2
    return _one_copy(replace(suited[0], averaged=both and use_ema), use_ema)


def select_prefix(weights: StateDict, prefix: str, path: Path) -> StateDict:
    """The weights whose names begin with a prefix, without the prefix.

    Raises:
        ConfigError: no name begins with it; lists the prefixes that there are.
    """
    prefix = prefix.rstrip(".") + "."
    taken = {n[len(prefix) :]: t for n, t in weights.tensors.items() if n.startswith(prefix)}
    if not taken:
        known = [f"{name} ({count} tensors)" for name, count in list_prefixes(weights.tensors)]
        raise ConfigError(
            f"no tensor's name begins with finetuning.key_prefix={prefix}",
            file=path,
            found="names such as " + ", ".join(list(weights.tensors)[:3]),
            expected="one of " + ", ".join(known) if known else "no prefix at all",
            fix="leave finetuning.key_prefix out: prefixes are found automatically",
        )
    others = tuple(name for name in weights.tensors if not name.startswith(prefix))
    return replace(weights, tensors=taken, left_out=(*weights.left_out, *others))


def list_prefixes(names: Mapping[str, object]) -> list[tuple[str, int]]:
    """What names begin with, and how many: the first part, or the first parts all share."""
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


def no_weights_error(path: Path, found: str) -> WeightsError:
    """The error for a file that can be read, but holds no network's weights."""
    return WeightsError("the file holds no weights", file=path, found=found, expected=EXPECTED)


# -------------------------------------------------------------------- internals
def _mapping(value: object) -> Mapping[str, Any] | None:
    """A dictionary, or the state dict of a whole network that was saved; else None."""
    if isinstance(value, StandIn):
        return dict(value.tensors()) or value.items or None
    return value if isinstance(value, Mapping) else None


def _below_known_keys(
    content: Mapping[str, Any], key: str, averaged: bool, seen: dict[int, object]
) -> Iterator[StateDict]:
    """Every part of a file that holds weights under a usual name, the likeliest first."""
    # What is there several times is looked at once.
    if id(content) in seen:
        return
    seen[id(content)] = content
    raw = _mapping(content.get(_RAW_BESIDE_AVERAGED))
    keys = [(name, averaged or (raw is not None and name == "state_dict")) for name in _KEYS]
    keys += [(_RAW_BESIDE_AVERAGED, False)]
    keys += [(name, True) for name in _AVERAGED_KEYS]
    nested = False
    for name, is_averaged in keys:
        inner = _mapping(content.get(name))
        if inner is None or key.count(".") == _MAX_DEPTH - 1:
            continue
        for found in _below_known_keys(inner, f"{key}.{name}".lstrip("."), is_averaged, seen):
            nested = True
            yield found
    own = _tensors(content)
    if own and not nested:
        yield StateDict(own, key, averaged)


def _tensors(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    found = ((str(name), _tensor(value)) for name, value in content.items())
    return {name: tensor for name, tensor in found if tensor is not None}


def _tensor(value: object) -> torch.Tensor | None:
    """A tensor, also of a numpy array; one without data for a tensor that is no dense array."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if is_tensor_stand_in(value):
        return _NOT_DENSE
    return value.array() if isinstance(value, StandIn) else None


def _nested_tensors(
    content: Mapping[str, Any], prefix: str, depth: int, seen: dict[int, object]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a network that was saved in parts, such as encoder and decoder."""
    if id(content) in seen:
        return
    seen[id(content)] = content
    for name, tensor in _tensors(content).items():
        yield prefix + name, tensor
    for name, value in content.items():
        inner = _mapping(value)
        if inner is not None and depth < _MAX_DEPTH and not _NO_WEIGHTS.search(str(name)):
            yield from _nested_tensors(inner, f"{prefix}{name}.", depth + 1, seen)


def _one_copy(weights: StateDict, use_ema: bool) -> StateDict:
    """The averaged or the raw weights, where one state dict holds both.

    Such as `model.conv.weight` beside `model_ema.module.conv.weight`.
    """
    averaged = {name: rest for name in weights.tensors if (rest := _below_average(name))}
    raw = sorted(weights.tensors.keys() - averaged.keys())
    rests = set(averaged.values())
    change = find_prefix_change(raw, rests)
    twins = sum(change(name) in rests for name in raw)
    # Beside the raw network there may be a few other tensors, such as those of losses.
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
