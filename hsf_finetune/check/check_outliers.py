"""Cases that differ from the others of their group: geometry, volumes, missing classes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from hsf_finetune.check.findings import EXCLUDE, Finding, format_mm
from hsf_finetune.check.measured_cases import MIN_CASES, MeasuredCase, find_lacking, read_numbers
from hsf_finetune.check.usual_values import (
    medians_of_others,
    quantiles_of_others,
    ranges_of_others,
    spreads_of_others,
)
from hsf_finetune.system.console import format_size

_SPACING_RATIO = 1.5
_EXTENT_RATIO = 2.5
_VOLUME_RATIO = 3.0
_TILT_DEG = 15.0
_SPREADS = 4.0
"""A volume may differ by so many times the usual spread (of logarithms)."""


def find_outliers(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Cases of a group that differ from the others."""
    if len(group) < MIN_CASES:
        return
    spacing, shape = read_numbers(group, "spacing_mm", "shape")
    for case, texts in _find_odd_sizes(group, spacing, _SPACING_RATIO):
        yield case.warn_image(
            "geometry/spacing",
            "the voxel size differs from that of the other cases",
            **texts,
            fix="check the header; if it is right, preprocessing.spacing=[X, Y, Z] brings all "
            "cases to one voxel size",
        )
    for case, texts in _find_odd_sizes(group, spacing * shape, _EXTENT_RATIO):
        yield case.warn_image(
            "geometry/size",
            "the volume covers another extent than the other cases",
            **texts,
            fix=f"crop it like the others, or {EXCLUDE}",
        )
    yield from _compare_axes(group)
    yield from _compare_volumes(group)
    yield from _find_missing_classes(group)


def _find_odd_sizes(
    group: Sequence[MeasuredCase], sizes_mm: np.ndarray, ratio: float
) -> Iterator[tuple[MeasuredCase, dict[str, str]]]:
    """Cases with a size, (cases, 3), far from the median of the others along some axis.

    The ratio that is allowed grows with that of nine in ten of the others: a mixed group
    does not say what is usual.
    """
    medians = np.stack([medians_of_others(axis) for axis in sizes_mm.T], axis=1)
    off = np.maximum(sizes_mm / medians, medians / sizes_mm).max(axis=1)
    limits = np.empty(len(group))
    for median in np.unique(medians, axis=0):  # three at most along each axis
        usual = np.maximum(sizes_mm / median, median / sizes_mm).max(axis=1)
        chosen = (medians == median).all(axis=1)
        limits[chosen] = 1.2 * quantiles_of_others(usual, 0.9)[chosen]
    for n in map(int, np.flatnonzero(off > np.maximum(ratio, limits))):
        found, expected = format_mm(sizes_mm[n]), f"about {format_mm(medians[n])}"
        yield group[n], {"found": found, "expected": expected}


def _compare_axes(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Grids that are rotated, or stored along other axes, unlike in the other cases."""
    tilts = read_numbers(group, "tilt_deg")[0][:, 0]
    orientations = [sys.intern(case.facts.read_measures().orientation) for case in group]
    usual = Counter(orientations).most_common(1)[0][0]
    medians, ranges = medians_of_others(tilts), ranges_of_others(tilts)
    for n, case in enumerate(group):
        if abs(tilts[n] - medians[n]) > max(_TILT_DEG, 2 * ranges[n]):
            yield case.warn_image(
                "geometry/tilt",
                "the grid is rotated against the scanner, unlike in the other cases",
                found=f"{tilts[n]:.0f} degrees",
                expected=f"about {medians[n]:.0f} degrees",
                fix="check the header, or resample it along the axes of the others",
            )
        if orientations[n] != usual:
            yield Finding(
                "repaired",
                "geometry/orientation",
                "the voxels are stored along other axes than in the other cases; all are read as "
                "RAS+",
                case.image_file,
                case.name,
                orientations[n],
                usual,
            )


def _compare_volumes(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Structures that are much larger or smaller than in the other cases."""
    protocol = group[0].protocol
    voxels, spacing = read_numbers(group, "row_voxels", "spacing_mm")
    voxel_mm3 = spacing.prod(axis=1)
    for row in np.flatnonzero(protocol.foreground_rows):
        present = np.flatnonzero(voxels[:, row])
        if len(present) < MIN_CASES:
            continue
        volumes_mm3 = voxels[present, row] * voxel_mm3[present]
        logs = np.log(volumes_mm3)
        medians = medians_of_others(logs)
        limits = np.maximum(
            np.log(_VOLUME_RATIO), _SPREADS * 1.4826 * spreads_of_others(logs, medians)
        )
        for n in np.flatnonzero(np.abs(logs - medians) > limits):
            yield group[present[n]].warn_label(
                "label/volume",
                f"{protocol.row_names[row]} is drawn much "
                f"{'larger' if logs[n] > medians[n] else 'smaller'} than in the other cases",
                found=f"{format_size(volumes_mm3[n])} mm3",
                expected=f"about {format_size(np.exp(medians[n]))} mm3",
                fix=f"compare it with another case; correct it, or {EXCLUDE}",
            )


def _find_missing_classes(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Classes that nearly all cases have, and some do not."""
    protocol = group[0].protocol
    (voxels,) = read_numbers(group, "row_voxels")
    count = int(voxels[:, protocol.foreground_rows].any(axis=1).sum())
    for row, lacking in find_lacking(group):
        for case in lacking:
            yield case.warn_label(
                "label/missing class",
                f"{protocol.row_names[row]} is not drawn in this case",
                found="no voxel of it",
                expected=f"{count - len(lacking)} of the {count} labels of the same dataset, pattern "
                "and side have it",
                fix="draw it; where it was left out on purpose, put such cases into a dataset of "
                "their own with unannotated: [...]",
            )
