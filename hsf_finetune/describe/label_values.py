"""The values in label files, counted and named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsf_finetune.data.volumes.check_volumes import to_whole_numbers
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.describe.label_names import NameTable, best_name_table
from hsf_finetune.describe.layouts.base_layout import UnsureNote
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.system.console import shorten_list
from hsf_finetune.system.errors import DataError, UserError

_MAX_VALUES = 254
_MAX_VOXELS = 1 << 30
"""Files are read until they hold so many voxels: that takes about half a minute."""
_MAX_MISSING = 20
"""A table that names more values that do not occur is one of a whole atlas."""
_BACKGROUND_NAMES = re.compile(
    r"(the )?(back|bg|clear|unknown|un-?label|none|nothing|other|outside|exterior|air|null|0)",
    re.IGNORECASE,
)
"""The start of what tables name the value 0."""


@dataclass(frozen=True)
class ValueCounts:
    """The values in label files.

    Args:
        cases: value -> label files that contain it, in ascending order of values.
        voxels: value -> voxels in all of them.
        read: number of label files that were read.
        total: number of label files.
        refused: files that cannot be used, and why.
    """

    cases: Mapping[int, int]
    voxels: Mapping[int, int]
    read: int
    total: int
    refused: tuple[tuple[VolumeRef, str], ...]


@dataclass(frozen=True)
class ValueNames:
    """Value -> name, without the background and those to ignore (not annotated), and its table."""

    names: Mapping[int, str]
    ignore: tuple[int, ...]
    table: NameTable | None
    notes: tuple[UnsureNote, ...]


def count_values(
    labels: Sequence[VolumeRef], progress: Callable[[int, int], None] = lambda done, total: None
) -> ValueCounts:
    """Counts the values of label files, of all of them up to a number of voxels.

    They are read in an order in which the first few are spread over all of them. The progress is
    called with (files done, files in all).

    Raises:
        DataError: none can be used, or they contain more values than a label has.
    """
    cases: Counter[int] = Counter()
    voxels: Counter[int] = Counter()
    refused: list[tuple[VolumeRef, str]] = []
    read = 0
    for number in _spread(len(labels)):
        if sum(voxels.values()) > _MAX_VOXELS:
            break
        try:
            found, counts = np.unique(to_whole_numbers(_read(labels[number])), return_counts=True)
        except UserError as error:
            refused.append((labels[number], error.what))
            continue
        finally:
            progress(read + len(refused), len(labels))
        read += 1
        cases.update(found.tolist())
        voxels.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        if len(cases) > _MAX_VALUES:
            raise DataError(
                "too many different values for a label",
                file=labels[number],
                found=f"{len(cases)} values, {min(cases)} to {max(cases)}",
                expected="a segmentation: one whole number per structure",
            )
    if not {*cases} - {0}:
        raise DataError(
            "the label files are empty" if read else "no label file can be used",
            file=labels[0],
            found=refused[0][1] if refused else "background only",
        )
    ordered = dict(sorted(cases.items())), dict(sorted(voxels.items()))
    return ValueCounts(*ordered, read, len(labels), tuple(refused))


def name_values(counts: ValueCounts, tables: Sequence[NameTable]) -> ValueNames:
    """Names the values by the table that names the most of them.

    A value without a name becomes `label_VALUE`; to a name that occurs twice its value is
    added.
    """
    values = [value for value in counts.cases if value != 0]
    table = best_name_table(tables, values)
    known = dict(table.names) if table else {}
    ignore = tuple(value for value in (table.ignore if table else ()) if value in values)
    names: dict[int, str] = {}
    for value in (v for v in values if v not in ignore):
        name = known.get(value, f"label_{value}".replace("-", "minus_"))
        taken = name in names.values() or name.lower() == BACKGROUND
        names[value] = f"{name}_{value}" if taken else name
    texts = ["no table names the label values: write the names of your structures"]
    if table is not None:
        nameless = [str(value) for value in names if value not in known]
        missing = [f"{table.path.name} does not name {shorten_list(nameless, 8)}"]
        texts = [*(missing if nameless else []), *_check_table(table, values, tables)]
    notes = [UnsureNote("labels_names", text) for text in texts]
    missing = [f"{v} {name}" for v, name in known.items() if v and v not in counts.cases]
    if counts.read < counts.total:
        text = f"only {counts.read} of {counts.total} label files were read"
        also = f"; the table also names {shorten_list(missing, 8)}" if missing else ""
        notes.append(UnsureNote("labels", text + also))
    elif table is not None and missing and len(missing) <= max(len(values), _MAX_MISSING):
        text = (
            f"{table.path.name} also names {shorten_list(missing, 8)}, which no label file "
            "contains: check that its values are not off by one"
        )
        notes.append(UnsureNote("labels_names", text))
    return ValueNames(names, ignore, table, tuple(notes))


def _check_table(table: NameTable, values: Sequence[int], tables: Sequence[NameTable]) -> list[str]:
    """What is not certain about the table that was chosen."""
    texts = []
    zero = table.names.get(0, "")
    if zero and not _BACKGROUND_NAMES.match(zero):
        texts.append(
            f"{table.path.name} names 0 '{zero}', yet 0 is background: its values seem off by one"
        )
    if table.regions:
        listed = "; ".join(f"{name}: {list(members)}" for name, members in table.regions)
        texts.append(
            f"dataset.json names regions of several values ({listed}); label_sets can say so"
        )
    others = [
        other.path.name
        for other in tables
        if other is not table
        and {*values} <= other.names.keys()
        and any(other.names[value] != table.names.get(value) for value in values)
    ]
    if others:
        texts.append(
            f"names are from {table.path.parent.name}/{table.path.name}; {shorten_list(others)} "
            "would name them otherwise"
        )
    return texts


def _read(ref: VolumeRef) -> Volume:
    try:
        return read_volume(ref)
    except DataError:
        if ref.key is None:
            raise
        # Values can be counted without a voxel size.
        return read_volume(VolumeRef(ref.path, ref.key, (1.0, 1.0, 1.0), ref.affine))


def _spread(count: int) -> list[int]:
    """Numbers below `count`, so that the first few are spread over all of them."""
    step = max(1, round(count * 0.618))
    while count and np.gcd(step, count) != 1:
        step += 1
    return [number * step % count for number in range(count)]
