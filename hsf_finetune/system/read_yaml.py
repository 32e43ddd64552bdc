"""YAML files that others may have written: plain data, of a size that is read at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hsf_finetune.system.errors import ConfigError

_MAX_BYTES = 1_000_000
_MAX_VALUES = 20_000
_MAX_DEPTH = 50


def read_yaml(file: Path) -> Any:
    """The plain data of a YAML file.

    Raises:
        ConfigError: see `check_yaml`.
        OSError, UnicodeDecodeError, yaml.YAMLError: it cannot be read.
    """
    check_yaml(file)
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def check_yaml(file: Path) -> None:
    """Refuses a YAML file that would take long to read, or much memory.

    An alias counts as often as what it stands for: a few lines can stand for 10^9 values.

    Raises:
        ConfigError: it is too large, too deep, holds too many values, or itself.
        OSError, UnicodeDecodeError, yaml.YAMLError: it cannot be read.
    """
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise _refusal(file, f"{size:,} bytes", f"at most {_MAX_BYTES:,}")
    values: dict[str, int] = {}
    counts: list[int] = [0]
    names: list[str | None] = [None]
    with file.open(encoding="utf-8") as opened:  # errors then name the file
        for event in yaml.parse(opened, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor in names:
                    raise _refusal(file, f"*{event.anchor} holds itself", "no such alias")
                counts[-1] += values.get(str(event.anchor), 1)
            elif isinstance(event, yaml.ScalarEvent):
                counts[-1] += 1
                if event.anchor:
                    values[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                counts.append(1)
                names.append(event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                count, name = counts.pop(), names.pop()
                counts[-1] += count
                if name:
                    values[name] = count
            if counts[-1] > _MAX_VALUES:
                raise _refusal(
                    file, "more values, aliases counted", f"at most {_MAX_VALUES:,} values"
                )
            if len(counts) > _MAX_DEPTH:
                raise _refusal(file, "more levels", f"at most {_MAX_DEPTH} levels")


def _refusal(file: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(
        "the YAML file is too large to be settings",
        file=file,
        found=found,
        expected=expected,
        fix="list many cases in a table (table: in place of patterns:)",
    )
