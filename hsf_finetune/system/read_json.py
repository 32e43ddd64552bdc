"""JSON files that a run wrote, which may be gone, damaged or incomplete since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsf_finetune.system.errors import DataError


def read_json(file: Path, shape: Mapping[str, object]) -> dict[str, Any]:
    """The object in a JSON file of a run.

    Args:
        file: of the run.
        shape: keys that the object must have -> type of each, `[type]` of a list's items, or the
            shape of an object. Further keys may be there.

    Raises:
        DataError: the file is missing, damaged or incomplete.
    """
    found: dict[str, Any] = _read(file, shape)
    return found


def read_json_list(file: Path, shape: object) -> list[Any]:
    """The list in a JSON file of a run.

    Args:
        file: of the run.
        shape: of each item, as for `read_json`.

    Raises:
        DataError: the file is missing, damaged or incomplete.
    """
    found: list[Any] = _read(file, [shape])
    return found


# -------------------------------------------------------------------- internals
def _read(file: Path, shape: Mapping[str, object] | Sequence[object]) -> Any:
    try:
        found = json.loads(file.read_text("utf-8", "surrogateescape"))
    except FileNotFoundError as error:
        raise _refusal(file, "no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(file, error) from error
    misfit = next(_find_misfits(found, shape, ""), None)
    if misfit is not None:
        raise _refusal(file, misfit)
    return found


def _find_misfits(found: object, shape: object, name: str) -> Iterator[str]:
    """What a value lacks of its shape, in words."""
    if isinstance(shape, Mapping):
        if not isinstance(found, dict):
            yield f"{name or 'the file'} is no object"
            return
        for key, part in shape.items():
            if key in found:
                yield from _find_misfits(found[key], part, f"{name}.{key}".lstrip("."))
            else:
                yield f"no '{key}'" + (f" in {name}" if name else "")
    elif isinstance(shape, list):
        if not isinstance(found, list):
            yield f"{name or 'the file'} is no list"
            return
        for number, item in enumerate(found):
            yield from _find_misfits(item, shape[0], f"{name}[{number}]")
    else:
        assert isinstance(shape, type)
        if not isinstance(found, shape):
            yield f"{name} is {json.dumps(found)[:60]}"


def _refusal(file: Path, found: object) -> DataError:
    return DataError(
        "a file of the run is missing, damaged or incomplete",
        file=file,
        found=found,
        expected="the file as the run wrote it",
        fix="copy it back from a backup of the run, or make the run again",
    )
