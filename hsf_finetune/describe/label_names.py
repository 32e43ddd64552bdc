"""Tables that name label values, in the four formats that are found beside segmentations.

- BIDS `*dseg.tsv`: columns index and name.
- FreeSurfer colour tables (`FreeSurferColorLUT.txt`, `.ctab`): number, name, red, green, blue, alpha.
- ITK-SNAP label descriptions: number, red, green, blue, alpha, visibility, mesh, "name".
- `dataset.json`: `{"1": "name"}` (Medical Segmentation Decathlon) or `{"name": 1}` (nnU-Net).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsf_finetune.data.discovery.pairing import is_hidden

_LARGEST_BYTES = 2_000_000
_SUFFIXES = (".tsv", ".txt", ".ctab", ".ctbl", ".label", ".lut", ".json")
_FREESURFER = re.compile(r"\s*(\d+)\s+(\S+)((?:\s+\d+){4})\s*")
_SNAP = re.compile(r'\s*(-?\d+)(?:\s+\d+){3}\s+[\d.]+\s+\d+\s+\d+\s+"(.*)"\s*')


@dataclass(frozen=True)
class NameTable:
    """Names of label values.

    Args:
        path: the file.
        kind: its format, for the user.
        names: value -> name, the background included where the file has it.
        ignore: values that mean "not annotated".
        regions: name -> values, where a file names regions of several values.
    """

    path: Path
    kind: str
    names: Mapping[int, str]
    ignore: tuple[int, ...] = ()
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()


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
        for path in root.rglob("*")
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
    index, name = header.index("index"), header.index("name")
    names = [(row[index].strip(), row[name]) for row in rows[1:] if len(row) > max(index, name)]
    return _make_table(path, "BIDS table", names)


def _text_table(path: Path) -> NameTable | None:
    lines = [line for line in _lines(path) if line.strip() and not line.lstrip().startswith("#")]
    names = [(match[1], match[2]) for line in lines if (match := _SNAP.fullmatch(line))]
    if found := _make_table(path, "ITK-SNAP label descriptions", names):
        return found
    names = [(match[1], match[2]) for line in lines if (match := _FREESURFER.fullmatch(line))]
    # A text that only contains such lines among others is something else.
    few = 2 * len(names) <= len(lines)
    return None if few else _make_table(path, "FreeSurfer colour table", names)


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


def _make_table(path: Path, kind: str, rows: Sequence[tuple[str, str]]) -> NameTable | None:
    names: dict[int, str] = {}
    for value, name in rows:
        if re.fullmatch(r"-?\d{1,9}(\.0+)?", value) and name.strip():
            names.setdefault(int(float(value)), " ".join(name.split()))
    return NameTable(path, kind, names) if names else None
