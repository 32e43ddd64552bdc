"""Which settings there are, at every depth: from the classes of the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from hsf_finetune.config.settings import Settings


def known_paths(tree: object) -> list[str]:
    """Paths of all settings that a configuration may have, such as `finetuning.stages.0.lr`.

    Args:
        tree: the configuration, with the chosen network, the names of cohorts, series and
            presets, and all lists.
    """
    paths = (".".join(map(str, path)) for path in _paths_below(Settings, tree))
    return list(dict.fromkeys(paths))


def fields_at(location: Sequence[str | int], tree: object) -> list[str]:
    """Names of the settings that a group has, or an entry of a list or of a mapping.

    Args:
        location: the keys that lead to it; none for the top level.
        tree: the configuration.
    """
    types: list[Any] = [Settings]
    for part in location:
        types = [child for kind in types for child in _children(kind, tree, part)]
        tree = _entries(tree).get(part)
    models = [member for kind in types for member in _members(kind, tree) if _is_group(member)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def may_be_added(location: Sequence[str | int], tree: object) -> bool:
    """Whether there is a setting of that name, though the configuration leaves it out.

    A new cohort, series, preset or stage beside others is not such a setting: its name is
    more likely a misspelt one.

    Args:
        location: the keys that lead to it.
        tree: the configuration.
    """
    types: list[Any] = [Settings]
    for part in location:
        fields = any(_is_group(member) for kind in types for member in _members(kind, tree))
        types = [child for kind in types for child in _children(kind, tree, part)]
        entries = _entries(tree)
        groups = any(_is_group(member) for kind in types for member in _members(kind, None))
        if not types or (groups and not fields and entries and part not in entries):
            return False
        tree = entries.get(part)
    return True


# -------------------------------------------------------------------- internals
def _paths_below(kind: Any, tree: object) -> Iterator[tuple[Any, ...]]:
    entries = _entries(tree)
    for member in _members(kind, tree):
        for part in member.model_fields if _is_group(member) else entries:
            for child in _children(member, tree, part):
                yield (part,)
                below = entries.get(part)
                if isinstance(below, Mapping | list):
                    yield from ((part, *path) for path in _paths_below(child, below))


def _children(kind: Any, tree: object, part: str | int) -> list[Any]:
    """Types of a setting of a group, or of an entry of a mapping or of a list."""
    found = []
    for member in _members(kind, tree):
        if _is_group(member):
            field = member.model_fields.get(part)
            found += [field.annotation] if field else []
        elif get_origin(member) in (dict, list):
            found.append(get_args(member)[-1])
    return found


def _members(kind: Any, tree: object) -> list[Any]:
    """The types that a union consists of; of those with a name or kind, that of the tree."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0], tree)
    if get_origin(kind) not in (Union, UnionType):
        return [kind]
    members = [member for one in get_args(kind) for member in _members(one, tree)]
    for tag in ("name", "kind"):
        groups = [m for m in members if _is_group(m) and tag in m.model_fields]
        name = _entries(tree).get(tag)
        if chosen := [m for m in groups if m.model_fields[tag].default == name]:
            return chosen
    return members


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _entries(tree: object) -> Mapping[Any, object]:
    if isinstance(tree, Mapping):
        return tree
    entries = enumerate(tree) if isinstance(tree, list) else ()
    return {key: value for n, value in entries for key in (n, str(n))}
