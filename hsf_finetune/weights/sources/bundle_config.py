"""Reads a MONAI bundle's configuration as data: nothing in it is run or imported."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.read_yaml import read_yaml
from hsf_finetune.weights.sources.bundle_expression import REFERENCE, read_expression

LIMIT_BYTES = 8 << 20
"""Largest configuration file; published ones have about a hundredth of that."""
_LIMIT_VALUES = 10_000
_LIMIT_DEPTH = 50
_NETWORK_KEYS = ("network_def", "network", "net")
_DESCRIPTIVE = {"_target_", "_desc_", "_requires_"}
_SEPARATOR = re.compile(r"::|#")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


OTHER_NETWORK = (
    "no network of this package is known to have these layers: take a bundle of another network, "
    "or\ntrain one of conf/models from the start (models=unet finetuning.pretrained=none)"
)
"""What to do where a network is not supported."""


class ComputedValueError(WeightsError):
    """A value of a configuration that would have to be computed, or that is no plain data."""


@dataclass(frozen=True)
class ConfigObject:
    """A network, a transform or an inferer as a configuration describes it.

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
        """An argument as plain data, references followed and simple expressions read.

        Raises:
            ComputedValueError: it is another expression or an object, refers to one, or to a
                missing key.
        """
        return _ReferenceReader(self).resolve(self.arguments[name], f"{self.key}.{name}", ())

    def error(
        self, found: str, expected: str, fix: str = "", kind: type[WeightsError] = WeightsError
    ) -> WeightsError:
        """The error for a network that cannot be used."""
        return kind(
            "the bundle's network cannot be read from its configuration",
            file=self.path,
            found=found,
            expected=expected,
            fix=fix or OTHER_NETWORK,
        )

    def computed(self, name: str, found: object, expected: str) -> WeightsError:
        """The error for a value that is not plain data."""
        return self.error(f"{name}: {_SHORT.repr(found)}", expected, kind=ComputedValueError)


class ArgumentError(Exception):
    """An argument that cannot be taken over, and why."""

    def __init__(self, name: str, why: WeightsError, is_computed: bool = False) -> None:
        super().__init__(str(why))
        self.name, self.why, self.is_computed = name, why, is_computed


class ObjectArguments:
    """An object's arguments, each of which must be used or have no effect."""

    def __init__(self, description: ConfigObject, without_effect: Sequence[str]) -> None:
        self.description = description
        self.unused = {name for name in description.arguments if name not in without_effect}

    def take(self, name: str, default: Any = ...) -> Any:
        """An argument as plain data."""
        if name not in self.description.arguments:
            if default is ...:
                raise self.error(name, None, "a value")
            return default
        self.unused.discard(name)
        try:
            return self.description.argument(name)
        except ComputedValueError as error:
            raise ArgumentError(name, error, is_computed=True) from error

    def require(self, **defaults: Any) -> None:
        """Refuses arguments with another value than their default."""
        for name, default in defaults.items():
            if (value := self.take(name, default)) != default:
                raise self.error(name, value, f"{default!r} is supported")

    def error(self, name: str, value: object, expected: str) -> Exception:
        """The error for an argument that is not supported."""
        found = f"{self.description.key}.{name}: {_SHORT.repr(value)}"
        return ArgumentError(name, self.description.error(found, expected))


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
        is_json = path.suffix == ".json"
        content = json.loads(path.read_text(encoding="utf-8")) if is_json else read_yaml(path)
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


def find_network(config: Mapping[str, Any], path: Path) -> ConfigObject | None:
    """The description of the network in a configuration; None if there is none.

    Raises:
        WeightsError: there is one, but in a form that would have to be run.
    """
    for key in _NETWORK_KEYS:
        given = config.get(key)
        # `network` may be `$@network_def.to(@device)`: the description has another key.
        if given is None or (key == "network" and isinstance(given, str)):
            continue
        description = ConfigObject("", {}, key, config, path)
        given, _ = _ReferenceReader(description).follow(given, key, ())
        target = given.get("_target_") if isinstance(given, Mapping) else None
        if not isinstance(target, str):
            raise description.computed(key, given, "a dictionary with the class as _target_")
        arguments = {str(k): v for k, v in given.items() if not str(k).startswith("_")}
        special = {k: v for k, v in given.items() if str(k).startswith("_")}
        for name, allowed in (("_disabled_", False), ("_mode_", "default")):
            if special.pop(name, allowed) != allowed:
                raise description.computed(f"{key}.{name}", given[name], f"{allowed}, or nothing")
        if odd := special.keys() - _DESCRIPTIVE:
            name = sorted(odd)[0]
            raise description.computed(f"{key}.{name}", given[name], "arguments of the network")
        return ConfigObject(target, arguments, key, config, path)
    return None


def find_objects(config: Mapping[str, Any], path: Path, *names: str) -> Iterator[ConfigObject]:
    """The objects below an entry of a configuration, such as the transforms of a `Compose`.

    References and sums of lists are followed; the objects' arguments are not.

    Args:
        config: the whole configuration.
        path: its file.
        names: keys that lead to the entry; nothing is found where one is missing.

    Raises:
        ComputedValueError: an entry would have to be computed.
    """
    reader = _ReferenceReader(ConfigObject("", {}, "", config, path), keeps_objects=True)
    found: Any = config
    for name in names:
        if not isinstance(found, Mapping) or name not in found:
            return
        found, _ = reader.follow(found[name], ".".join(names), ())
    yield from _objects(reader, found, names[-1])


def _objects(reader: _ReferenceReader, found: Any, key: str) -> Iterator[ConfigObject]:
    found, _ = reader.follow(found, key, ())
    if found is None:
        return
    reader.values += 1
    if reader.values > _LIMIT_VALUES:
        raise reader.description.computed(key, "...", "some dozen objects")
    if isinstance(found, list):
        for one in found:
            yield from _objects(reader, one, key)
        return
    target = found.get("_target_") if isinstance(found, Mapping) else None
    if not isinstance(target, str):
        raise reader.description.computed(key, found, "objects with their class as _target_")
    name = target.rpartition(".")[2]
    arguments = {str(k): v for k, v in found.items() if k not in _DESCRIPTIVE}
    config, path = reader.description.config, reader.description.path
    made = ConfigObject(target, arguments, name, config, path)
    if "_disabled_" in arguments and ObjectArguments(made, ()).take("_disabled_"):
        return
    arguments.pop("_disabled_", None)
    if name == "Compose":
        yield from _objects(reader, arguments.get("transforms"), name)
        return
    yield made


class _ReferenceReader:
    """Follows references through a configuration to plain data, or to objects where it keeps them."""

    def __init__(self, description: ConfigObject, keeps_objects: bool = False) -> None:
        self.description = description
        self.keeps_objects = keeps_objects
        self.values = 0

    def resolve(self, value: Any, key: str, trail: tuple[str, ...]) -> Any:
        """A value without any reference in it."""
        value, trail = self.follow(value, key, trail)
        self.values += 1
        if self.values > _LIMIT_VALUES or key.count(".") > _LIMIT_DEPTH:
            raise self.description.computed(key, "...", "a description of some dozen values")
        if isinstance(value, Mapping):
            if "_target_" in value:
                raise self.description.computed(key, value["_target_"], "plain values, no objects")
            return {str(k): self.resolve(v, f"{key}.{k}", trail) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.resolve(v, f"{key}.{i}", trail) for i, v in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise self.description.computed(key, value, "numbers, texts, lists or dictionaries")

    def follow(self, value: Any, key: str, trail: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        """The value at the end of a chain of references; anything else unchanged."""
        while isinstance(value, str) and value[:1] in ("$", "@", "%"):
            text = value.strip()
            reference = REFERENCE.fullmatch(text.removeprefix("$").strip())
            if reference is None:
                return self._expression(text, key, trail), trail
            name = _SEPARATOR.sub("::", reference[1])
            trail = self._longer(trail, name, key, value)
            value = self._item(name, key, value)
        return value, trail

    def _expression(self, text: str, key: str, trail: tuple[str, ...]) -> Any:
        """The value of an expression of a simple form, its references followed."""

        def look_up(reference: str) -> Any:
            name = _SEPARATOR.sub("::", reference)
            item, longer = self._item(name, key, text), self._longer(trail, name, key, text)
            if self.keeps_objects:
                return self.follow(item, key, longer)[0]
            return self.resolve(item, key, longer)

        try:
            if text.startswith("$"):
                return read_expression(text[1:], look_up)
        except ValueError:
            pass
        raise self.description.computed(
            key,
            text,
            "a plain value, or a reference to one (@key, @group::key); expressions are never run",
        )

    def _longer(self, trail: tuple[str, ...], name: str, key: str, value: str) -> tuple[str, ...]:
        if name in trail or len(trail) > _LIMIT_DEPTH:
            raise self.description.computed(
                key, value, "a reference that does not lead back to itself"
            )
        return (*trail, name)

    def _item(self, name: str, key: str, value: str) -> Any:
        found: Any = self.description.config
        for part in name.split("::"):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise self.description.computed(key, value, "a reference to a key of the same file")
        return found
