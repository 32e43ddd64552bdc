"""What the label files hold: their values, counted, and what each is called."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hsf_finetune.data.volumes.checks import whole_numbers
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.describe.label_names import Lookup, best_lookup
from hsf_finetune.describe.layouts.base_layout import Doubt, some
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.system.errors import DataError, UserError

_MOST_VALUES = 254
_LONGEST_S = 30.0


@dataclass(frozen=True)
class Counts:
    """The values of label files.

    Args:
        cases: value -> label files that have it, in ascending order of values.
        voxels: value -> voxels in all of them.
        read: label files that were read.
        total: label files there are.
        refused: files that cannot be used, and why.
    """

    cases: Mapping[int, int]
    voxels: Mapping[int, int]
    read: int
    total: int
    refused: tuple[tuple[VolumeRef, str], ...]


@dataclass(frozen=True)
class Naming:
    """What the values are called.

    Args:
        names: value -> name, without the background.
        ignore: values that say nothing.
        source: the table that the names are from.
        doubts: what is not certain.
    """

    names: Mapping[int, str]
    ignore: tuple[int, ...]
    source: Lookup | None
    doubts: tuple[Doubt, ...]


def count_values(
    labels: Sequence[VolumeRef],
    tick: Callable[[int, int], None] = lambda done, total: None,
    longest_s: float = _LONGEST_S,
) -> Counts:
    """Counts the values of label files, of as many as half a minute allows.

    They are read in an order that is spread over all of them.

    Args:
        labels: the label files.
        tick: told how many are done.
        longest_s: after so many seconds no further file is read.

    Raises:
        DataError: none can be used, or they hold more values than a label has.
    """
    cases: dict[int, int] = {}
    voxels: dict[int, int] = {}
    refused: list[tuple[VolumeRef, str]] = []
    order = _spread(len(labels))
    begun, read = time.monotonic(), 0
    for number in order:
        if read and time.monotonic() - begun > longest_s:
            break
        try:
            found, counts = np.unique(whole_numbers(_read(labels[number])), return_counts=True)
        except UserError as error:
            refused.append((labels[number], error.what))
            continue
        finally:
            tick(read + len(refused), len(labels))
        read += 1
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            cases[value] = cases.get(value, 0) + 1
            voxels[value] = voxels.get(value, 0) + count
        if len(cases) > _MOST_VALUES:
            raise DataError(
                "too many different values for a label",
                file=labels[number],
                found=f"{len(cases)} values, {min(cases)} to {max(cases)}",
                expected="a segmentation: one whole number per structure",
            )
    if not read or not any(cases.keys() - {0}):
        raise DataError(
            "no label file can be used" if not read else "the label files are empty",
            file=labels[0],
            found=refused[0][1] if refused else "background only",
        )
    ordered = dict(sorted(cases.items()))
    return Counts(ordered, {v: voxels[v] for v in ordered}, read, len(labels), tuple(refused))


def name_values(counts: Counts, lookups: Sequence[Lookup]) -> Naming:
    """Names the values by the table that knows the most of them.

    A value without a name becomes `label_VALUE`, and a name that is there twice gets
    its value behind it.
    """
    values = [value for value in counts.cases if value != 0]
    lookup = best_lookup(lookups, values)
    doubts: list[Doubt] = []
    known = dict(lookup.names) if lookup else {}
    ignore = tuple(v for v in (lookup.ignore if lookup else ()) if v in values)
    names: dict[int, str] = {}
    for value in (v for v in values if v not in ignore):
        name = known.get(value, f"label_{value}".replace("-", "minus_"))
        taken = name in names.values() or name.lower() == BACKGROUND
        names[value] = f"{name}_{value}" if taken else name
    nameless = [str(value) for value in names if value not in known]
    if lookup is None:
        text = "no table names the label values: write the names of your structures"
        doubts.append(Doubt("labels_names", text))
    elif nameless:
        text = f"{lookup.path.name} does not name {some(nameless, 8)}"
        doubts.append(Doubt("labels_names", text))
    if lookup is not None:
        doubts += _about(lookup, values, lookups)
    if counts.read < counts.total:
        text = f"only {counts.read} of {counts.total} label files were read"
        missing = [f"{v} {n}" for v, n in known.items() if v and v not in counts.cases]
        also = f"; the table also names {some(missing, 8)}" if missing else ""
        doubts.append(Doubt("labels", text + also))
    return Naming(names, ignore, lookup, tuple(doubts))


# -------------------------------------------------------------------- internals
def _about(lookup: Lookup, values: Sequence[int], lookups: Sequence[Lookup]) -> list[Doubt]:
    """What is doubtful about a table."""
    found = []
    if lookup.regions:
        listed = "; ".join(f"{name}: {list(members)}" for name, members in lookup.regions)
        text = f"dataset.json names regions of several values ({listed}); label_sets can say so"
        found.append(Doubt("labels_names", text))
    others = [
        other.path.name
        for other in lookups
        if other is not lookup
        and {*values} <= other.names.keys()
        and any(other.names[v] != lookup.names.get(v) for v in values)
    ]
    if others:
        text = f"names are from {_place(lookup.path)}; {some(others)} would name them otherwise"
        found.append(Doubt("labels_names", text))
    return found


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _read(ref: VolumeRef) -> Volume:
    try:
        return read_volume(ref)
    except DataError:
        if ref.key is None:
            raise
        # Values can be counted without knowing how large a voxel is.
        return read_volume(replace(ref, spacing_mm=(1.0, 1.0, 1.0)))


def _spread(count: int) -> list[int]:
    """Numbers below `count`, so that the first few are spread over all of them."""
    step = max(1, round(count * 0.618))
    while count and np.gcd(step, count) != 1:
        step += 1
    return [number * step % count for number in range(count)]
