"""Error messages for a wrong configuration: every error at once, each with its path and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hsf_finetune.config.schema import fields_at, known_paths, may_be_added
from hsf_finetune.config.settings import OTHER_NAMES, WEIGHTS_KEYS, WRONG_SETTING
from hsf_finetune.system.errors import ConfigError

_SYNONYMS = {
    "learning_rate": "lr",
    "epochs": "max_epochs",
    "gpus": "devices",
    "workers": "num_workers",
    "weights": "pretrained",
    "classes": "out_channels",
}
"""Names that other programs have -> ours."""

_NO_SUCH_TAG = ("union_tag_invalid", "union_tag_not_found")
"""Errors of a group whose name or kind is unknown, or missing."""

_EXTRAS = {"hydra/sweeper": "optuna", "hydra/launcher": "slurm"}
"""Groups of Hydra's own -> the extra that has further options of them."""

_LONGEST_FOUND = 80
"""Characters of a value that are shown."""


def unknown_setting(path: str, tree: object) -> ConfigError:
    """The error for a path that no setting has.

    Args:
        path: what was given, such as `models.learning_rate`.
        tree: the configuration without it.
    """
    known = _candidates(path, tree)
    meant = suggestion(path, known)
    group, _, key = path.rpartition(".")
    if meant:
        more = f"\n+{path}=... for a new one" if key in fields_at(group.split("."), tree) else ""
        return ConfigError(f"there is no setting '{path}'", fix=f"did you mean '{meant}'?{more}")
    while group and group not in known:
        group = group.rpartition(".")[0]
    siblings = dict.fromkeys(k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == group)
    return ConfigError(
        f"there is no setting '{path}'",
        expected=f"a setting of {group or 'the top level'}: {', '.join(siblings)}",
    )


def suggestion(path: str, known: Sequence[str]) -> str | None:
    """The setting that was probably meant: its neighbour, its namesake, or a similar one.

    Args:
        path: what was given.
        known: paths of all settings.
    """
    group, _, key = path.rpartition(".")
    siblings: dict[str, str] = {}
    by_key: dict[str, list[str]] = {}
    for other in known:
        other_group, _, name = other.rpartition(".")
        by_key.setdefault(name, []).append(other)
        if other_group == group:
            siblings[name] = other
    names = (_SYNONYMS.get(key, key), key)
    for name in names:
        if name in siblings:
            return siblings[name]
    for name in names:
        if name in by_key:
            return difflib.get_close_matches(path, by_key[name], n=1, cutoff=0)[0]
    close = difflib.get_close_matches(key, siblings, n=1)
    if close:
        return siblings[close[0]]
    close = difflib.get_close_matches(key, by_key, n=1, cutoff=0.75)
    if close:
        return difflib.get_close_matches(path, by_key[close[0]], n=1, cutoff=0)[0]
    return None


def unknown_option(group: str, option: str, options: Sequence[str]) -> ConfigError:
    """The error for `group=option` without such a YAML file."""
    close = difflib.get_close_matches(option, options, n=1)
    own = f"a file of your own: --config-dir DIR, with DIR/{group}/{option}.yaml"
    if extra := _EXTRAS.get(group):
        own = f"pip install 'hsf-finetune[{extra}]'"
    return ConfigError(
        f"there is no {group}={option}",
        expected=", ".join(options) or f"no group is called '{group}'",
        fix=f"did you mean {group}={close[0]}?\n{own}" if close else own,
    )


def validation_error(
    error: ValidationError,
    tree: Mapping[Any, Any],
    origin: Callable[[str], Path | None],
    moved: Sequence[str] = (),
) -> ConfigError:
    """All errors of pydantic in one message, with paths as on the command line.

    Args:
        error: of the validation.
        tree: what was validated.
        origin: path of a setting -> the file it stems from; None is the command line.
        moved: keys of `weights` that were given as keys of `finetuning`.
    """
    messages: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for detail in error.errors():
        location = _location(detail, tree)
        path = ".".join(map(str, location))
        if detail["type"] in _NO_SUCH_TAG:
            path += "." + _tag(detail)
        if detail["type"] == WRONG_SETTING:
            path = detail["ctx"]["path"]
        if location[:1] == ["weights"] and location[1:] and location[1] in moved:
            path = path.replace("weights", "finetuning", 1)
        message = _message(detail, location, tree)
        if message not in messages.setdefault(path, []):
            messages[path].append(message)
        found[path] = _found(detail)
    lines = [f"  {path}: {', or '.join(m)}{found[path]}" for path, m in messages.items()]
    files = dict.fromkeys(str(file) for file in map(origin, messages) if file)
    count = "a setting is wrong:" if len(lines) == 1 else f"{len(lines)} settings are wrong:"
    return ConfigError("\n".join([count, *lines]), file=", ".join(files) or None)


# -------------------------------------------------------------------- internals
def _tag(detail: ErrorDetails) -> str:
    """The setting that says which one of several groups is meant: `name`, or `kind`."""
    return str(detail["ctx"]["discriminator"]).strip("'")


def _location(detail: ErrorDetails, tree: Mapping[Any, Any]) -> list[str | int]:
    """Where the value is in the tree; pydantic also names the chosen member of a union."""
    value: Any = tree
    location: list[str | int] = []
    parts = detail["loc"]
    for number, part in enumerate(parts, start=1):
        children = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(children, Mapping) and part in children:
            value = children[part]
        elif not (detail["type"] == "missing" and number == len(parts)):
            continue
        location.append(part)
    return location


def _candidates(path: str, tree: object) -> list[str]:
    """Paths of all settings, and of those beside a path that the configuration leaves out."""
    *group, _ = path.split(".")
    neighbours = [[*group, name] for name in fields_at(group, tree)]
    left_out = [".".join(one) for one in neighbours if may_be_added(one, tree)]
    moved = WEIGHTS_KEYS if group == ["finetuning"] else OTHER_NAMES
    return [*known_paths(tree), *left_out, *(f"finetuning.{key}" for key in moved)]


def _message(detail: ErrorDetails, location: Sequence[str | int], tree: Mapping[Any, Any]) -> str:
    """What is wrong, and what would be right."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        path = ".".join(map(str, location))
        meant = suggestion(path, _candidates(path, tree))
        if meant is None:
            known = ", ".join(fields_at(location[:-1], tree))
            return f"there is no such setting; known: {known}"
        group, _, key = meant.rpartition(".")
        meant = key if group == path.rpartition(".")[0] else meant
        return f"there is no such setting; did you mean '{meant}'?"
    if kind in ("missing", "union_tag_not_found"):
        return "this setting is missing"
    if kind == "union_tag_invalid":
        tags = detail["ctx"]["expected_tags"]
        names = [tag.strip("'") for tag in tags.split(", ")]
        close = difflib.get_close_matches(str(detail["ctx"]["tag"]), names, n=1)
        return f"should be one of {tags}" + (f"; did you mean '{close[0]}'?" if close else "")
    if kind == WRONG_SETTING:
        return detail["msg"]
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _found(detail: ErrorDetails) -> str:
    """` (found ...)`, where it says more than the message."""
    value = detail["input"]
    if detail["type"] == "union_tag_invalid":
        value = value.get(_tag(detail))
    elif detail["type"] in ("extra_forbidden", "missing", "union_tag_not_found", WRONG_SETTING):
        return ""
    if isinstance(value, Mapping) and value:
        return ""
    text = repr(value)
    short = text if len(text) <= _LONGEST_FOUND else text[: _LONGEST_FOUND - 3] + "..."
    hint = "; nothing is written null" if value in ("None", "none", "") else ""
    return f" (found {short}{hint})"
