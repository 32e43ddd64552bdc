"""What every benchmark prints and writes: rows with the same keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, object]


def row(name: str, value: float, unit: str, reference: str, ratio: float | None) -> Row:
    """A line of the table; `ratio` is value over reference."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": "" if ratio is None else round(ratio, 3),
    }


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints rows as a table."""
    table = Table(title=title, title_justify="left")
    for key in rows[0]:
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    Console(width=120).print(table)


def write(path: Path | None, rows: Sequence[Row]) -> None:
    """Writes `{"rows": [...]}`, if there is somewhere to write to."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"rows": list(rows)}, indent=1) + "\n")


def measured(
    path: Path | None,
    missing: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]],
    measure: Callable[[dict[str, Any]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of a file and those that it lacks, each written as soon as it is measured.

    Args:
        path: of the rows; None keeps none.
        missing: the rows that are there -> what is to be measured yet.
        measure: one of those -> its figures.
    """
    rows = json.loads(path.read_text())["rows"] if path and path.exists() else []
    for wanted in missing(rows):
        rows.append({**wanted, **measure(wanted)})
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "cases"}), flush=True)
        write(path, rows)
    return rows


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return str(value)
