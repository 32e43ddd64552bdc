"""Finds the names of classes among what programs save beside their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.weights.files.stand_in import StandIn

_KEYS = ("classes", "class_names", "labels", "label_names", "labels_names")
_MOST_VALUES = 20_000
_MOST_NAMES = 1000


def find_class_names(
    described: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[str, ...] | None:
    """The class of each output channel, where a checkpoint's settings name them.

    Only names of which the first is the background are taken, and only as many as the
    network has outputs.
    """
    for given in _candidates(described):
        names = _names(given)
        if names and any(t.dim() and t.shape[0] == len(names) for t in tensors.values()):
            return names
    return None


# -------------------------------------------------------------------- internals
def _candidates(described: Mapping[str, Any]) -> Iterator[Any]:
    """Values below a key that names classes, those of the outermost levels first."""
    levels: list[Mapping[Any, Any]] = [described]
    left = _MOST_VALUES
    while levels:
        levels, outer = [], levels
        for key, below in (pair for values in outer for pair in values.items()):
            left -= 1
            if left < 0:
                return
            inner = _plain(below)
            if key in _KEYS:
                yield inner
            if isinstance(inner, Mapping):
                levels.append(inner)


def _plain(value: Any) -> Any:
    """What a stand-in holds: the value, items or attributes of a configuration."""
    if not isinstance(value, StandIn):
        return value
    fields = value.fields()
    content = fields.get("_val", fields.get("_content"))
    return content if content is not None else value.elements or fields


def _names(given: Any) -> tuple[str, ...] | None:
    """Names from a list, or from a dictionary of numbers and names in either direction."""
    if not isinstance(given, (Mapping, list, tuple)) or len(given) > _MOST_NAMES:
        return None
    if isinstance(given, Mapping):
        pairs = [(key, _plain(value)) for key, value in given.items()]
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(value, key) for key, value in pairs]
        numbered = {int(k): v for k, v in pairs if str(k).isdecimal()}
        given = [numbered.get(number) for number in range(len(pairs))]
    names = [_plain(name) for name in given]
    if len(names) < 2 or not all(isinstance(name, str) and name for name in names):
        return None
    first, *others = names
    if first.casefold() not in (BACKGROUND, "bg") or len(set(names)) < len(names):
        return None
    return (BACKGROUND, *others)
