"""What a check saw, in a few lines: cases, subjects, voxel sizes, sizes, classes, unused files."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from itertools import compress

import numpy as np

from hsf_finetune.check.measured_cases import MeasuredCase, Numbers, read_numbers
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.system.console import count_of, format_size, shorten_list

_MAX_CLASSES = 16


def describe_data(cohort: Cohort, measured: Sequence[MeasuredCase]) -> tuple[str, ...]:
    """What was seen of a cohort, as lines to print; `measured` are the cases that could be read."""
    subjects = len({case.subject for case in cohort.cases})
    lines = [
        f"found: {count_of(len(cohort.cases), 'case')} of {count_of(subjects, 'subject')}, "
        f"{count_of(cohort.channels, 'channel')}"
    ]
    if measured:
        spacing, shape = read_numbers(measured, "spacing_mm", "shape")
        lines += [
            f"  voxel size: {_range(spacing)} mm",
            f"  size: {_range(shape)} voxels",
            f"  classes: {_describe_classes(measured)}",
        ]
    reasons: dict[str, list[str]] = {}
    for entry in cohort.others:
        if entry.status in ("unused", "excluded") and not entry.fix:
            reasons.setdefault(entry.reason, []).append(entry.path.name)
    lines += [f"  not used, {why}: {shorten_list(names)}" for why, names in reasons.items()]
    return tuple(lines)


def _range(sizes: Numbers) -> str:
    """Smallest and largest size along each axis; one of them where they are the same."""
    ends = (np.min(sizes, axis=0), np.max(sizes, axis=0))
    return " to ".join(dict.fromkeys(" x ".join(format_size(size) for size in end) for end in ends))


def _describe_classes(measured: Sequence[MeasuredCase]) -> str:
    """Each class or set with the number of cases that show it, and its median volume in them."""
    volumes: dict[str, array[float]] = {}
    for case in measured:
        measures = case.facts.read_measures()
        voxel_mm3 = math.prod(measures.spacing_mm)
        rows = zip(case.protocol.row_names, measures.row_voxels, strict=True)
        for name, voxels in compress(rows, case.protocol.foreground_rows):
            volumes.setdefault(name, array("d")).extend([voxels * voxel_mm3] if voxels else [])
    texts = [
        f"{name} in {len(found)}"
        + (f" (median {format_size(np.median(found))} mm3)" if found else "")
        for name, found in volumes.items()
    ]
    return shorten_list(texts, _MAX_CLASSES)
