"""A scan, and what was found in it, compared with what the model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import Finding, format_mm, warn_about
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.typical_scans import (
    BRIGHTNESS,
    EXTENT,
    PIECES,
    SMOOTHNESS,
    SPACING,
    Quantity,
    Range,
    largest_piece,
    measure_scan,
    volume_of,
)
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.system.console import format_size

_RESAMPLED_RATIO = 2.0
"""Tolerance of voxel sizes where scans are resampled."""
_OLD_EXTENT_RATIO = 2.0
"""Tolerance of extents where only their median is known."""
_LOOK = "look at the scan and at what was found: the model has learnt nothing about such scans"


@dataclass(frozen=True)
class ScanComparison:
    """Measures of a scan beside those of the training data.

    Args:
        measured: name of a quantity -> its value in the scan.
        usual: name of a quantity -> its range in the training data.
        cases: number of training cases.
        warn: makes warnings about the scan.
    """

    measured: Mapping[str, float]
    usual: Mapping[str, Range]
    cases: int
    warn: partial[Finding]

    def unusual(self, quantities: Sequence[Quantity]) -> list[Quantity]:
        """Those of some quantities that are known and unlike in the training data."""
        return [
            one
            for one in quantities
            if one.name in self.measured
            and one.name in self.usual
            and one.is_unusual(self.measured[one.name], self.usual[one.name], self.cases)
        ]

    def sizes(self, quantities: Sequence[Quantity]) -> dict[str, str]:
        """Lengths along the axes, found and expected, for a warning."""
        low, high = (format_mm(self.usual[q.name][end] for q in quantities) for end in (0, 1))
        found = format_mm(self.measured[q.name] for q in quantities)
        return {"found": found, "expected": low if low == high else f"{low} to {high}"}

    def values(
        self, quantities: Sequence[Quantity], write: Callable[[float], str]
    ) -> dict[str, str]:
        """Values, found and expected, for a warning; `write` makes the text of a number."""
        found = [f"{q.name} {write(self.measured[q.name])}" for q in quantities]
        ends = [(q.name, *self.usual[q.name]) for q in quantities]
        expected = [f"{name} {write(low)} to {write(high)}" for name, low, high in ends]
        return {"found": ", ".join(found), "expected": ", ".join(expected)}


def compare_scan(
    scan: Volume, summary: DataSummary, target_spacing_mm: Sequence[float] | None
) -> Iterator[Finding]:
    """How a scan differs from the training data: voxel size, extent, noise and contrast.

    Args:
        scan: its first channel.
        summary: of the training data.
        target_spacing_mm: what the model resamples scans to, if anything.
    """
    usual = summary.usual or _ranges_of_medians(summary)
    made = ScanComparison(measure_scan(scan), usual, summary.cases, warn_about(scan.ref, ""))
    spacing, extent = SPACING, EXTENT
    if target_spacing_mm is not None:
        spacing = _with_tolerance(SPACING, _RESAMPLED_RATIO)
    if not summary.usual:
        extent = _with_tolerance(EXTENT, _OLD_EXTENT_RATIO)
    if made.unusual(spacing):
        yield made.warn(
            "scan/spacing",
            "the voxel size is unlike that of the training data",
            **made.sizes(spacing),
            fix="resample the scan; a model trained with preprocessing.spacing does it itself",
        )
    if made.unusual(extent):
        yield made.warn(
            "scan/size",
            "the scan covers another extent than those of the training data",
            **made.sizes(extent),
            fix="crop it to the structure, as the training scans are",
        )
    if made.unusual([SMOOTHNESS]):
        noisier = made.measured[SMOOTHNESS.name] < usual[SMOOTHNESS.name][0]
        yield made.warn(
            "scan/noise",
            f"the scan is {'noisier' if noisier else 'smoother'} than those of the training data",
            **made.values([SMOOTHNESS], "{:.2f}".format),
            fix=_LOOK,
        )
    if odd := made.unusual(BRIGHTNESS):
        yield made.warn(
            "scan/contrast",
            "grey values are distributed unlike in the training data: another contrast, another "
            "part of the body, or artefacts",
            **made.values(odd, "{:+.2f}".format),
            fix=_LOOK,
        )


def compare_result(
    scan: Volume,
    foreground: npt.NDArray[np.bool_],
    volumes_mm3: Mapping[str, float],
    summary: DataSummary | None,
) -> Iterator[Finding]:
    """How what was found differs from the training labels: nothing, in pieces, of another volume.

    Args:
        scan: its first channel.
        foreground: what was found, (X, Y, Z).
        volumes_mm3: class -> its volume.
        summary: of the training data; without one only an empty result is told.
    """
    warn = warn_about(scan.ref, "")
    if not foreground.any():
        yield warn("result/empty", "nothing was found in the scan", fix=_LOOK)
        return
    if summary is None:
        return
    volumes = {volume_of(name): volume for name, volume in volumes_mm3.items()}
    measured = {PIECES.name: largest_piece(foreground), **{q.name: v for q, v in volumes.items()}}
    made = ScanComparison(measured, summary.usual, summary.cases, warn)
    if made.unusual([PIECES]) and measured[PIECES.name] < summary.usual[PIECES.name][0]:
        yield warn(
            "result/pieces",
            "what was found is in more pieces than the training labels",
            **made.values([PIECES], "{:.2f}".format),
            fix=_LOOK,
        )
    if odd := made.unusual(list(volumes)):
        yield warn(
            "result/volume",
            "what was found is much larger or smaller than in the training labels",
            **made.values(odd, format_size),
            fix=_LOOK,
        )


def _ranges_of_medians(summary: DataSummary) -> dict[str, Range]:
    """What a summary of version 0.1.0 says: medians of voxel size and extent."""
    extent_mm = [s * n for s, n in zip(summary.spacing_mm, summary.size_vox, strict=True)]
    medians = zip((*SPACING, *EXTENT), (*summary.spacing_mm, *extent_mm), strict=True)
    return {quantity.name: (median, median) for quantity, median in medians}


def _with_tolerance(quantities: Sequence[Quantity], tolerance: float) -> tuple[Quantity, ...]:
    return tuple(replace(quantity, tolerance=tolerance) for quantity in quantities)
