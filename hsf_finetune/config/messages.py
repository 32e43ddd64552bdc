"""What is wrong with a configuration, in words that help: all at once, each with its path."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hsf_finetune.config import settings
from hsf_finetune.system.errors import ConfigError

_SYNONYMS = {
    "learning_rate": "lr",
    "epochs": "max_epochs",
    "gpus": "devices",
    "workers": "num_workers",
    "weights": "pretrained",
    "classes": "out_channels",
}
"""Names that other programs use, and ours."""

_LONGEST_FOUND = 80


def unknown_setting(path: str, known: Sequence[str]) -> ConfigError:
    """The error for a path that no setting has.

    Args:
        path: what was asked for, such as `models.learning_rate`.
        known: every path there is.
    """
    like = suggestion(path, known)
    if like:
        return ConfigError(f"there is no setting '{path}'", fix=f"did you mean '{like}'?")
    group = path.rpartition(".")[0]
    while group and group not in known:
        group = group.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == group]
    return ConfigError(
        f"there is no setting '{path}'",
        expected=f"a setting of {group or 'the top level'}: {', '.join(siblings)}",
    )


def suggestion(path: str, known: Sequence[str]) -> str | None:
    """The setting that was probably meant: its neighbour, its namesake, or the like."""
    group, _, key = path.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == group}
    by_key: dict[str, list[str]] = {}
    for other in known:
        by_key.setdefault(other.rpartition(".")[2], []).append(other)
    for name in (key, _SYNONYMS.get(key, key)):
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
    return ConfigError(
        f"there is no {group}={option}",
        expected=", ".join(options) or f"no group is called '{group}'",
        fix=f"did you mean {group}={close[0]}?\n{own}" if close else own,
    )


def validation_error(
    error: ValidationError, tree: Mapping[Any, Any], origin: Callable[[str], Path | None]
) -> ConfigError:
    """All of pydantic's complaints in one message, with paths as on the command line.

    Args:
        error: the complaints.
        tree: what was validated.
        origin: path of a setting -> the file it stems from; None is the command line.
    """
    complaints: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for detail in error.errors():
        location = _location(detail, tree)
        path = ".".join(map(str, location))
        if detail["type"] == "union_tag_invalid":
            path += ".name"
        message, value = _complaint(detail, location, tree)
        if message not in complaints.setdefault(path, []):
            complaints[path].append(message)
        found[path] = value
    lines = [f"  {path}: {', or '.join(m)}{found[path]}" for path, m in complaints.items()]
    files = dict.fromkeys(str(file) for file in map(origin, complaints) if file)
    count = "a setting is wrong:" if len(lines) == 1 else f"{len(lines)} settings are wrong:"
    return ConfigError("\n".join([count, *lines]), file=", ".join(files) or None)


# -------------------------------------------------------------------- internals
def _location(detail: ErrorDetails, tree: Mapping[Any, Any]) -> list[str | int]:
    """Where the value is in the tree; pydantic also names the chosen member of a union."""
    here: Any = tree
    location: list[str | int] = []
    parts = detail["loc"]
    for number, part in enumerate(parts, start=1):
        children = dict(enumerate(here)) if isinstance(here, list) else here
        if isinstance(children, Mapping) and part in children:
            here = children[part]
        elif not (detail["type"] == "missing" and number == len(parts)):
            continue
        location.append(part)
    return location


def _complaint(
    detail: ErrorDetails, location: Sequence[str | int], tree: Mapping[Any, Any]
) -> tuple[str, str]:
    """What is wrong, and ` (found ...)` where that says more."""
    if detail["type"] == "extra_forbidden":
        known = _fields(location[:-1], tree)
        key = str(location[-1])
        close = difflib.get_close_matches(_SYNONYMS.get(key, key), known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
        return f"there is no such setting; {hint}", ""
    if detail["type"] == "missing":
        return "this setting is missing", ""
    value = detail["input"]
    if detail["type"] == "union_tag_invalid":
        return (
            f"should be one of {detail['ctx']['expected_tags']}",
            f" (found {value.get('name')!r})",
        )
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[:1].lower() + message[1:]
    if isinstance(value, Mapping) and value:
        return message, ""
    text = repr(value)
    short = text if len(text) <= _LONGEST_FOUND else text[: _LONGEST_FOUND - 3] + "..."
    hint = "; nothing is written null" if value in ("None", "none", "") else ""
    return message, f" (found {short}{hint})"


def _fields(location: Sequence[str | int], tree: Mapping[Any, Any]) -> list[str]:
    """Names of the settings that a group has."""
    group: type[BaseModel] = settings.Settings
    match [*location]:
        case ["datasets", "datasets", _, "patterns", _]:
            group = settings.PatternSettings
        case ["datasets", "datasets", _]:
            group = settings.DatasetSettings
        case ["models", "hparams"]:
            group = settings.ARUNetHparams
        case ["models"]:
            networks = get_args(get_args(settings.NetworkSettings)[0])
            name = tree["models"].get("name")
            group = next(n for n in networks if n.model_fields["name"].default == name)
        case [str(key)]:
            annotation = settings.Settings.model_fields[key].annotation
            assert isinstance(annotation, type)
            group = annotation
    return list(group.model_fields)
