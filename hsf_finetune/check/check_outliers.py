"""Cases that differ from the others of their group: geometry, volumes, missing classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from hsf_finetune.check.findings import EXCLUDE, Finding, format_mm
from hsf_finetune.check.measured_cases import MIN_CASES, MeasuredCase

_SPACING_RATIO = 1.5
_EXTENT_RATIO = 2.5
_VOLUME_RATIO = 3.0
_TILT_DEG = 15.0
_USUAL_SHARE = 0.8
"""A class that so many of the cases have is expected in all of them."""
_SPREADS = 4.0
"""A volume may differ by so many times the usual spread (of logarithms)."""


def find_outliers(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Cases of a group that differ from the others."""
    if len(group) < MIN_CASES:
        return
    spacing = np.array([case.measures.spacing_mm for case in group])
    extent = spacing * np.array([case.measures.shape for case in group])
    for case, texts in _find_odd_sizes(group, spacing, _SPACING_RATIO):
        yield case.warn_image(
            "geometry/spacing",
            "the voxel size differs from that of the other cases",
            **texts,
            fix="check the header; if it is right, preprocessing.spacing=[X, Y, Z] brings all "
            "cases to one voxel size",
        )
    for case, texts in _find_odd_sizes(group, extent, _EXTENT_RATIO):
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
    for n, case in enumerate(group):
        others = np.delete(sizes_mm, n, axis=0)
        median = np.median(others, axis=0)
        off = np.maximum(sizes_mm[n] / median, median / sizes_mm[n])
        usual = np.maximum(others / median, median / others).max(axis=1)
        if off.max() > max(ratio, 1.2 * float(np.quantile(usual, 0.9))):
            found, expected = format_mm(sizes_mm[n]), f"about {format_mm(median)}"
            yield case, {"found": found, "expected": expected}


def _compare_axes(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Grids that are rotated, or stored along other axes, unlike in the other cases."""
    tilts = np.array([case.measures.tilt_deg for case in group])
    usual = Counter(case.measures.orientation for case in group).most_common(1)[0][0]
    for n, case in enumerate(group):
        others = np.delete(tilts, n)
        median = float(np.median(others))
        if abs(tilts[n] - median) > max(_TILT_DEG, 2 * float(np.ptp(others))):
            yield case.warn_image(
                "geometry/tilt",
                "the grid is rotated against the scanner, unlike in the other cases",
                found=f"{tilts[n]:.0f} degrees",
                expected=f"about {median:.0f} degrees",
                fix="check the header, or resample it along the axes of the others",
            )
        if case.measures.orientation != usual:
            yield Finding(
                "repaired",
                "geometry/orientation",
                "the voxels are stored along other axes than in the other cases; all are read as "
                "RAS+",
                case.image_file,
                case.name,
                case.measures.orientation,
                usual,
            )


def _compare_volumes(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Structures that are much larger or smaller than in the other cases."""
    protocol = group[0].protocol
    for row in np.flatnonzero(protocol.foreground_rows):
        present = [case for case in group if case.measures.row_voxels[row]]
        if len(present) < MIN_CASES:
            continue
        voxel_mm3 = np.array([float(np.prod(case.measures.spacing_mm)) for case in present])
        volumes_mm3 = np.array([case.measures.row_voxels[row] for case in present]) * voxel_mm3
        logs = np.log(volumes_mm3)
        for n, case in enumerate(present):
            others = np.delete(logs, n)
            median = float(np.median(others))
            spread = 1.4826 * float(np.median(np.abs(others - median)))
            if abs(logs[n] - median) > max(np.log(_VOLUME_RATIO), _SPREADS * spread):
                yield case.warn_label(
                    "label/volume",
                    f"{protocol.row_names[row]} is drawn much "
                    f"{'larger' if logs[n] > median else 'smaller'} than in the other cases",
                    found=f"{volumes_mm3[n]:.0f} mm3",
                    expected=f"about {np.exp(median):.0f} mm3",
                    fix=f"compare it with another case; correct it, or {EXCLUDE}",
                )


def _find_missing_classes(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Classes that nearly all cases have, and some do not."""
    protocol = group[0].protocol
    labelled = [case for case in group if case.measures.label_hash]
    for row in np.flatnonzero(protocol.foreground_rows):
        lacking = [case for case in labelled if not case.measures.row_voxels[row]]
        having = len(labelled) - len(lacking)
        if having < _USUAL_SHARE * len(labelled):
            continue
        for case in lacking:
            yield case.warn_label(
                "label/missing class",
                f"{protocol.row_names[row]} is not drawn in this case",
                found="no voxel of it",
                expected=f"{having} of {len(group)} cases have it",
                fix="draw it; where it was left out on purpose, put such cases into a dataset of "
                "their own with unannotated: [...]",
            )
