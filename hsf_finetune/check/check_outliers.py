"""Cases that differ from the others of their kind in a plain measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from hsf_finetune.check.findings import EXCLUDE, Finding
from hsf_finetune.check.measured_cases import FEWEST, Member

_SPACING_RATIO = 1.5
_SIZE_RATIO = 2.5
_VOLUME_RATIO = 3.0
_TILT_DEG = 15.0
_USUAL_SHARE = 0.8
"""What so many of the cases have is expected of all."""
_SPREAD = 4.0
"""How many times the usual spread (in logarithms) a volume may be off."""


def outlier_findings(group: Sequence[Member]) -> Iterator[Finding]:
    """What sets single cases of a group apart."""
    if len(group) < FEWEST:
        return
    yield from _geometry(group)
    yield from _volumes(group)
    yield from _missing(group)


def _geometry(group: Sequence[Member]) -> Iterator[Finding]:
    spacing = np.array([m.measured.spacing_mm for m in group])
    size = spacing * np.array([m.measured.shape for m in group])
    tilt = np.array([m.measured.tilt_deg for m in group])
    usual = Counter(m.measured.orientation for m in group).most_common(1)[0][0]
    for n, member in enumerate(group):
        name, file = member.case.name, member.image
        others = np.arange(len(group)) != n
        for kind, what, values, ratio, fix in (
            (
                "geometry/spacing",
                "the voxel size is unlike that of the other cases",
                spacing,
                _SPACING_RATIO,
                "check the header; if it is right, datasets.target_spacing_mm=[X, Y, Z] brings all "
                "cases to one voxel size",
            ),
            (
                "geometry/size",
                "the volume covers another extent than the other cases",
                size,
                _SIZE_RATIO,
                f"crop it as the others are, or {EXCLUDE}",
            ),
        ):
            middle = np.median(values[others], axis=0)
            off = np.maximum(values[n] / middle, middle / values[n])
            if off.max() > max(ratio, 1.2 * _usual_ratio(values[others], middle)):
                yield Finding(
                    "warned", kind, what, file, name, _mm(values[n]), f"about {_mm(middle)}", fix
                )
        turned = abs(tilt[n] - float(np.median(tilt[others])))
        if turned > max(_TILT_DEG, 2 * float(np.ptp(tilt[others]))):
            yield Finding(
                "warned",
                "geometry/tilt",
                "the grid is turned against the scanner unlike in the other cases",
                file,
                name,
                f"{tilt[n]:.0f} degrees",
                f"about {np.median(tilt[others]):.0f} degrees",
                "check the header, or resample it along the axes of the others",
            )
        if member.measured.orientation != usual:
            yield Finding(
                "repaired",
                "geometry/orientation",
                "the voxels are stored along other axes than in the other cases; all are read as "
                "RAS+",
                file,
                name,
                member.measured.orientation,
                usual,
            )


def _usual_ratio(values: np.ndarray, middle: np.ndarray) -> float:
    """How far nine in ten of the others are off: a mixed group is no standard."""
    ratios = np.maximum(values / middle, middle / values).max(axis=1)
    return float(np.quantile(ratios, 0.9))


def _volumes(group: Sequence[Member]) -> Iterator[Finding]:
    """Structures much larger or smaller than in the others."""
    names = group[0].case.protocol.row_names
    for row in np.flatnonzero(group[0].case.protocol.foreground_rows):
        sized = [(m, _volume_mm3(m, int(row))) for m in group]
        sized = [(m, volume) for m, volume in sized if volume > 0]
        if len(sized) < FEWEST:
            continue
        logs = np.log([volume for _, volume in sized])
        for n, (member, volume) in enumerate(sized):
            rest = np.delete(logs, n)
            middle = float(np.median(rest))
            spread = 1.4826 * float(np.median(np.abs(rest - middle)))
            if abs(logs[n] - middle) > max(np.log(_VOLUME_RATIO), _SPREAD * spread):
                yield Finding(
                    "warned",
                    "label/volume",
                    f"{names[row]} is drawn much {'larger' if logs[n] > middle else 'smaller'} "
                    "than in the other cases",
                    member.label,
                    member.case.name,
                    f"{volume:.0f} mm3",
                    f"about {np.exp(middle):.0f} mm3",
                    f"look at it beside another case; mend it, or {EXCLUDE}",
                )


def _missing(group: Sequence[Member]) -> Iterator[Finding]:
    """Classes that nearly all cases show, and single ones do not."""
    protocol = group[0].case.protocol
    for row in np.flatnonzero(protocol.foreground_rows):
        shown = [bool(m.measured.row_voxels[row]) for m in group]
        drawn = [bool(m.measured.label_hash) for m in group]
        if sum(shown) < _USUAL_SHARE * sum(drawn):
            continue
        for member, shows, draws in zip(group, shown, drawn, strict=True):
            if draws and not shows:
                yield Finding(
                    "warned",
                    "label/missing class",
                    f"{protocol.row_names[row]} is not drawn in this case",
                    member.label,
                    member.case.name,
                    "no voxel of it",
                    f"{sum(shown)} of {len(group)} cases show it",
                    "draw it; where it was left out on purpose, put such cases into a dataset of "
                    "their own with unannotated: [...]",
                )


def _volume_mm3(member: Member, row: int) -> float:
    return member.measured.row_voxels[row] * float(np.prod(member.measured.spacing_mm))


def _mm(values: np.ndarray) -> str:
    return " x ".join(f"{value:.3g}" for value in values) + " mm"
