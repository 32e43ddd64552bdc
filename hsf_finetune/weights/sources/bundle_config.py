"""A MONAI bundle's configuration, read as data: nothing in it is run or imported."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hsf_finetune.system.errors import WeightsError

LIMIT_BYTES = 8 << 20
"""Largest configuration file; the published ones have a hundredth of that."""
_LIMIT_VALUES = 10_000
_LIMIT_DEPTH = 50
_NETWORK_KEYS = ("network_def", "network", "net")
# MONAI: `@` stands for another item's value, `%` for its text; `::` (once `#`) enters it.
_REFERENCE = re.compile(r"\$?[@%](\w+(?:(?:::|#)\w+)*)")
_SEPARATOR = re.compile(r"::|#")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


@dataclass(frozen=True)
class NetworkText:
    """What a configuration says of the network, as it stands there.

    Args:
        target: the class, as text.
        arguments: name -> value, references and expressions unresolved.
        key: where it stands in the file.
        config: the whole configuration.
        path: the file.
    """

    target: str
    arguments: Mapping[str, Any]
    key: str
    config: Mapping[str, Any]
    path: Path

    def argument(self, name: str) -> Any:
        """An argument as plain data, references followed.

        Raises:
            WeightsError: it is an expression, an object, or refers to one or to nothing.
        """
        return _Reader(self).plain(self.arguments[name], f"{self.key}.{name}", ())

    def refused(self, name: str, found: object, expected: str) -> WeightsError:
        """The error for something about the network that cannot be had from this file."""
        return WeightsError(
            "the bundle's network cannot be told from its configuration",
            file=self.path,
            found=f"{name}: {_SHORT.repr(found)}",
            expected=expected,
            fix="choose the network by hand (models=unet or another one of conf/models, with its "
            "widths) and give\nthe file of the weights: finetuning.pretrained=.../models/model.pt",
        )


def read_config(path: Path) -> Mapping[str, Any]:
    """What a JSON or YAML file holds.

    Raises:
        WeightsError: it is too large, or no JSON or YAML of a dictionary.
    """
    size = path.stat().st_size
    if size > LIMIT_BYTES:
        raise WeightsError(
            "the bundle's configuration is too large",
            file=path,
            found=f"{size:,} bytes",
            expected=f"at most {LIMIT_BYTES:,}",
        )
    try:
        text = path.read_text(encoding="utf-8")
        # Plain data alone: safe_load makes no objects.
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise WeightsError(
            "the bundle's configuration cannot be read",
            file=path,
            found=str(error)[:300] or type(error).__name__,
            expected="plain JSON" if path.suffix == ".json" else "plain YAML",
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            "the bundle's configuration is no dictionary", file=path, found=type(content).__name__
        )
    return content


def network_text(config: Mapping[str, Any], path: Path) -> NetworkText | None:
    """Where a configuration says which network it is; None if it nowhere does.

    Raises:
        WeightsError: it does, but in a form that would have to be run.
    """
    for key in _NETWORK_KEYS:
        given = config.get(key)
        if key == "network" and isinstance(given, str):
            # `$@network_def.to(@device)`: the network is somewhere else.
            continue
        if given is None:
            continue
        text = NetworkText("", {}, key, config, path)
        given, _ = _Reader(text).followed(given, key, ())
        target = given.get("_target_") if isinstance(given, Mapping) else None
        if not isinstance(target, str):
            raise text.refused(key, given, "a dictionary with the class as _target_")
        arguments = {str(k): v for k, v in given.items() if not str(k).startswith("_")}
        special = {k: v for k, v in given.items() if str(k).startswith("_")}
        for name, allowed in (("_disabled_", (False,)), ("_mode_", ("default",))):
            if special.pop(name, allowed[0]) not in allowed:
                raise text.refused(f"{key}.{name}", given[name], f"{allowed[0]}, or nothing")
        if odd := special.keys() - {"_target_", "_desc_", "_requires_"}:
            name = sorted(odd)[0]
            raise text.refused(f"{key}.{name}", given[name], "arguments of the network")
        return NetworkText(target, arguments, key, config, path)
    return None


class _Reader:
    """Follows references through a configuration, as far as they lead to plain data."""

    def __init__(self, text: NetworkText) -> None:
        self.text = text
        self.values = 0

    def plain(self, value: Any, key: str, trail: tuple[str, ...]) -> Any:
        """A value without any reference in it."""
        value, trail = self.followed(value, key, trail)
        self.values += 1
        if self.values > _LIMIT_VALUES or key.count(".") > _LIMIT_DEPTH:
            raise self.text.refused(key, "...", "a description of some dozen values")
        if isinstance(value, Mapping):
            if "_target_" in value:
                raise self.text.refused(key, value["_target_"], "plain values, no objects")
            return {str(k): self.plain(v, f"{key}.{k}", trail) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(v, f"{key}.{i}", trail) for i, v in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise self.text.refused(key, value, "numbers, texts, lists or dictionaries")

    def followed(self, value: Any, key: str, trail: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        """What a reference leads to in the end; anything else as it is."""
        while isinstance(value, str) and value[:1] in ("$", "@", "%"):
            reference = _REFERENCE.fullmatch(value.strip())
            if reference is None:
                raise self.text.refused(
                    key,
                    value,
                    "a plain value, or a reference to one (@key, @group::key); "
                    "expressions are never run",
                )
            name = _SEPARATOR.sub("::", reference[1])
            if name in trail or len(trail) > _LIMIT_DEPTH:
                raise self.text.refused(key, value, "a reference that does not lead to itself")
            trail = (*trail, name)
            value = self._item(name, key, value)
        return value, trail

    def _item(self, name: str, key: str, value: str) -> Any:
        found: Any = self.text.config
        for part in name.split("::"):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise self.text.refused(key, value, "a reference to something in the same file")
        return found
