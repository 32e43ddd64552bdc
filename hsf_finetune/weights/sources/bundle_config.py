"""Reads a MONAI bundle's configuration as data: nothing in it is run or imported."""

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
"""Largest configuration file; published ones have about a hundredth of that."""
_LIMIT_VALUES = 10_000
_LIMIT_DEPTH = 50
_NETWORK_KEYS = ("network_def", "network", "net")
# MONAI: `@` stands for another item's value, `%` for its text; `::` (once `#`) enters it.
_REFERENCE = re.compile(r"\$?[@%](\w+(?:(?:::|#)\w+)*)")
_SEPARATOR = re.compile(r"::|#")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


@dataclass(frozen=True)
class NetworkDescription:
    """The network as a configuration describes it.

    Args:
        target: the class, as text.
        arguments: name -> value, references and expressions unresolved.
        key: its key in the file.
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
            WeightsError: it is an expression or an object, refers to one, or to a missing key.
        """
        return _ReferenceReader(self).resolve(self.arguments[name], f"{self.key}.{name}", ())

    def error(self, name: str, found: object, expected: str) -> WeightsError:
        """The error for a part of the description that cannot be used."""
        return WeightsError(
            "the bundle's network cannot be read from its configuration",
            file=self.path,
            found=f"{name}: {_SHORT.repr(found)}",
            expected=expected,
            fix="choose the network yourself (models=unet or another one of conf/models, with its "
            "widths) and give\nthe file of the weights: finetuning.pretrained=.../models/model.pt",
        )


def read_config(path: Path) -> Mapping[str, Any]:
    """The content of a JSON or YAML file.

    Raises:
        WeightsError: it is too large, or is not a dictionary in JSON or YAML.
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
        # Plain data only: safe_load creates no objects.
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
            "the bundle's configuration is not a dictionary",
            file=path,
            found=type(content).__name__,
        )
    return content


def find_network(config: Mapping[str, Any], path: Path) -> NetworkDescription | None:
    """The description of the network in a configuration; None if there is none.

    Raises:
        WeightsError: there is one, but in a form that would have to be run.
    """
    for key in _NETWORK_KEYS:
        given = config.get(key)
        if key == "network" and isinstance(given, str):
            # `$@network_def.to(@device)`: the description has another key.
            continue
        if given is None:
            continue
        description = NetworkDescription("", {}, key, config, path)
        given, _ = _ReferenceReader(description).follow(given, key, ())
        target = given.get("_target_") if isinstance(given, Mapping) else None
        if not isinstance(target, str):
            raise description.error(key, given, "a dictionary with the class as _target_")
        arguments = {str(k): v for k, v in given.items() if not str(k).startswith("_")}
        special = {k: v for k, v in given.items() if str(k).startswith("_")}
        for name, allowed in (("_disabled_", (False,)), ("_mode_", ("default",))):
            if special.pop(name, allowed[0]) not in allowed:
                raise description.error(f"{key}.{name}", given[name], f"{allowed[0]}, or nothing")
        if odd := special.keys() - {"_target_", "_desc_", "_requires_"}:
            name = sorted(odd)[0]
            raise description.error(f"{key}.{name}", given[name], "arguments of the network")
        return NetworkDescription(target, arguments, key, config, path)
    return None


class _ReferenceReader:
    """Follows references through a configuration to plain data."""

    def __init__(self, description: NetworkDescription) -> None:
        self.description = description
        self.values = 0

    def resolve(self, value: Any, key: str, trail: tuple[str, ...]) -> Any:
        """A value without any reference in it."""
        value, trail = self.follow(value, key, trail)
        self.values += 1
        if self.values > _LIMIT_VALUES or key.count(".") > _LIMIT_DEPTH:
            raise self.description.error(key, "...", "a description of some dozen values")
        if isinstance(value, Mapping):
            if "_target_" in value:
                raise self.description.error(key, value["_target_"], "plain values, no objects")
            return {str(k): self.resolve(v, f"{key}.{k}", trail) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.resolve(v, f"{key}.{i}", trail) for i, v in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise self.description.error(key, value, "numbers, texts, lists or dictionaries")

    def follow(self, value: Any, key: str, trail: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        """The value at the end of a chain of references; anything else unchanged."""
        while isinstance(value, str) and value[:1] in ("$", "@", "%"):
            reference = _REFERENCE.fullmatch(value.strip())
            if reference is None:
                raise self.description.error(
                    key,
                    value,
                    "a plain value, or a reference to one (@key, @group::key); "
                    "expressions are never run",
                )
            name = _SEPARATOR.sub("::", reference[1])
            if name in trail or len(trail) > _LIMIT_DEPTH:
                raise self.description.error(
                    key, value, "a reference that does not lead back to itself"
                )
            trail = (*trail, name)
            value = self._item(name, key, value)
        return value, trail

    def _item(self, name: str, key: str, value: str) -> Any:
        found: Any = self.description.config
        for part in name.split("::"):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise self.description.error(key, value, "a reference to a key of the same file")
        return found
