"""Tables that name label values, in the four formats that are found beside segmentations.

- BIDS `*dseg.tsv`: columns index and name, and if needed color (#RRGGBB).
- FreeSurfer colour tables (`FreeSurferColorLUT.txt`, `.ctab`): number, name, red, green, blue, alpha.
- ITK-SNAP label descriptions: number, red, green, blue, alpha, visibility, mesh, "name".
- `dataset.json`: `{"1": "name"}` (Medical Segmentation Decathlon) or `{"name": 1}` (nnU-Net).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsf_finetune.data.discovery.pairing import is_hidden
from hsf_finetune.labels.label_colours import Colour
from hsf_finetune.system.walk_folder import paths_below

_LARGEST_BYTES = 2_000_000
_SUFFIXES = (".tsv", ".txt", ".ctab", ".ctbl", ".label", ".lut", ".json")
_FREESURFER = re.compile(r"\s*(?P<value>\d+)\s+(?P<name>\S+)(?P<colour>(?:\s+\d+){4})\s*")
_SNAP = re.compile(
    r'\s*(?P<value>-?\d+)(?P<colour>(?:\s+\d+){3})\s+[\d.]+\s+\d+\s+\d+\s+"(?P<name>.*)"\s*'
)
_WHOLE = r"-?\d{1,9}(\.0+)?"
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


@dataclass(frozen=True)
class NameTable:
    """Names of label values.

    Args:
        path: the file.
        kind: its format, for the user.
        names: value -> name, the background included where the file has it.
        ignore: values that mean "not annotated".
        regions: name -> values, where a file names regions of several values.
        colours: value -> red, green and blue, where the file has colours.
    """

    path: Path
    kind: str
    names: Mapping[int, str]
    ignore: tuple[int, ...] = ()
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    colours: Mapping[int, Colour] = field(default_factory=dict)


def read_name_table(path: Path) -> NameTable | None:
    """Reads a table that names label values; None if the file is no such table."""
    match path.suffix.lower():
        case ".tsv":
            return _bids(path)
        case ".json":
            return _dataset_json(path)
    return _text_table(path)


def find_name_tables(root: Path) -> list[NameTable]:
    """Every table of names below a folder, those in the fewest folders first."""
    files = [
        path
        for path in paths_below(root)
        if path.suffix.lower() in _SUFFIXES
        and not is_hidden(path, root)
        and path.is_file()
        and path.stat().st_size <= _LARGEST_BYTES
        # Other JSON files are sidecars of scans.
        and (path.suffix.lower() != ".json" or path.name == "dataset.json")
    ]
    ordered = sorted(files, key=lambda path: (len(path.parts), path))
    return [found for path in ordered if (found := read_name_table(path)) is not None]


def best_name_table(tables: Sequence[NameTable], values: Collection[int]) -> NameTable | None:
    """The table that names the most of the values; of equal ones that with the fewest others."""
    wanted = {*values}
    fitting = [t for t in tables if wanted & t.names.keys() or t.ignore or t.regions]

    def rank(table: NameTable) -> tuple[int, int]:
        return -len(wanted & table.names.keys()), len(table.names.keys() - wanted)

    return min(fitting, key=rank, default=None)


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The object of a JSON file; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, Mapping) else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return []


def _bids(path: Path) -> NameTable | None:
    try:
        rows = list(csv.reader(_lines(path), delimiter="\t"))
    except csv.Error:
        return None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "index" not in header or "name" not in header:
        return None
    columns = [header.index("index"), header.index("name")]
    columns += [header.index("color")] if "color" in header else []
    full = [[row[n].strip() for n in columns] for row in rows[1:] if len(row) > max(columns)]
    texts = {row[0]: match[1] for row in full if (match := _HEX.fullmatch(row[-1]))}
    colours = {value: [*bytes.fromhex(text)] for value, text in texts.items()}
    return _make_table(path, "BIDS table", [(row[0], row[1]) for row in full], colours)


def _text_table(path: Path) -> NameTable | None:
    lines = [line for line in _lines(path) if line.strip() and not line.lstrip().startswith("#")]
    kinds = (("ITK-SNAP label descriptions", _SNAP), ("FreeSurfer colour table", _FREESURFER))
    for kind, expression in kinds:
        rows = [match for line in lines if (match := expression.fullmatch(line))]
        names = [(row["value"], row["name"]) for row in rows]
        colours = {row["value"]: [*map(int, row["colour"].split()[:3])] for row in rows}
        # A text that only contains such lines among others is something else.
        few = expression is _FREESURFER and 2 * len(names) <= len(lines)
        if not few and (found := _make_table(path, kind, names, colours)):
            return found
    return None


def _dataset_json(path: Path) -> NameTable | None:
    labels = (read_json(path) or {}).get("labels")
    if not isinstance(labels, Mapping):
        return None
    names: list[tuple[str, str]] = []
    regions = []
    ignore: tuple[int, ...] = ()
    for key, value in labels.items():
        if isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value):
            regions.append((str(key), tuple(value)))
        elif isinstance(value, int) and not isinstance(value, bool):
            if str(key) == "ignore":
                ignore = (value,)
            else:
                names.append((str(value), str(key)))
        elif isinstance(value, str):
            names.append((str(key), value))
    found = _make_table(path, "dataset.json", names)
    if found is None and not regions:
        return None
    known = found.names if found else {}
    return NameTable(path, "dataset.json", known, ignore, tuple(regions))


def _make_table(
    path: Path,
    kind: str,
    rows: Sequence[tuple[str, str]],
    colours: Mapping[str, Sequence[int]] | None = None,
) -> NameTable | None:
    names: dict[int, str] = {}
    for value, name in rows:
        if re.fullmatch(_WHOLE, value) and name.strip():
            names.setdefault(int(float(value)), " ".join(name.split()))
    known = {
        int(float(value)): (r, g, b)
        for value, (r, g, b) in (colours or {}).items()
        if re.fullmatch(_WHOLE, value) and max(r, g, b) < 256
    }
    return NameTable(path, kind, names, colours=known) if names else None
