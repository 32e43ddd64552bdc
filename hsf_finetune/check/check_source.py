"""The data at hand compared with what the source model was trained on."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from hsf_finetune.check.findings import Finding, format_mm, warn_about
from hsf_finetune.check.measured_cases import MeasuredCase, read_numbers
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.typical_scans import usual_ranges, volume_of
from hsf_finetune.labels.classes import BACKGROUND

_SPACING_RATIO = 1.5
_EXTENT_RATIO = 2.0
_OPPOSITE = 0.2
"""Contrasts of opposite sign are reported where both are at least this strong."""
_BRIGHTNESS_SHIFT = 1.0
"""In standard deviations of the z-normalised image."""


def summarise_data(cases: Sequence[MeasuredCase]) -> DataSummary | None:
    """Medians over some cases; None if there are none."""
    if not cases:
        return None
    spacing, shape, contrast = read_numbers(cases, "spacing_mm", "shape", "contrast")
    means: dict[str, array[float]] = {}
    for case in cases:
        row_mean = case.facts.read_measures().row_mean
        for names, mean in zip(case.protocol.row_sets, row_mean, strict=True):
            if len(names) == 1 and mean is not None:
                means.setdefault(next(iter(names)), array("d")).append(mean)
    return DataSummary(
        len(cases),
        tuple(float(n) for n in np.median(spacing, axis=0)),
        tuple(int(n) for n in np.median(shape, axis=0)),
        None if np.isnan(contrast).all() else float(np.nanmedian(contrast)),
        {name: float(np.median(values)) for name, values in means.items()},
        usual_ranges(_typical_and_volumes(case) for case in cases),
    )


def _typical_and_volumes(case: MeasuredCase) -> dict[str, float]:
    """The typical quantities, and volumes of the classes whose every voxel is labelled as such, in mm3."""
    measures = case.facts.read_measures()
    rows = list(zip(case.protocol.row_sets, measures.row_voxels, strict=True))
    vague = {name for names, voxels in rows if len(names) > 1 and voxels for name in names}
    voxel_mm3 = math.prod(measures.spacing_mm)
    single = [(next(iter(names)), voxels) for names, voxels in rows if len(names) == 1]
    volumes = {
        volume_of(name).name: voxels * voxel_mm3
        for name, voxels in single
        if name != BACKGROUND and name not in vague
    }
    return {**measures.typical, **volumes}


def compare_with_source(
    target: DataSummary,
    source: DataSummary,
    file: str,
    target_spacing_mm: Sequence[float] | None = None,
) -> Iterator[Finding]:
    """Where the data that train differ from those of the source model in a file.

    Scans are resampled to `target_spacing_mm`, if it is given.
    """
    warn = warn_about(file, "")
    spacing = np.array(target_spacing_mm or target.spacing_mm)
    ratio = spacing / np.array(source.spacing_mm)
    if max(ratio.max(), (1 / ratio).max()) > _SPACING_RATIO:
        yield warn(
            "source/spacing",
            "the source model was trained on another voxel size",
            found=f"{format_mm(spacing)} in these data",
            expected=f"{format_mm(source.spacing_mm)}, as in its training data",
            fix=f"preprocessing.spacing=[{', '.join(f'{n:.3g}' for n in source.spacing_mm)}]",
        )
    extents = np.array(target.spacing_mm) * target.size_vox
    extents = extents / (np.array(source.spacing_mm) * source.size_vox)
    if extents.max() > _EXTENT_RATIO or extents.min() < 1 / _EXTENT_RATIO:
        yield warn(
            "source/size",
            "the source model was trained on volumes of another extent",
            found=f"{target.size_vox} voxels in these data",
            expected=f"{source.size_vox} voxels in its training data",
            fix="crop (or extend) the scans to that extent; z-normalisation and context depend "
            "on it",
        )
    yield from _compare_brightness(target, source, warn)


def _compare_brightness(
    target: DataSummary, source: DataSummary, warn: partial[Finding]
) -> Iterator[Finding]:
    fix = "train the encoder first: finetuning.mode=encoder, or finetuning.mode=both"
    a, b = source.contrast, target.contrast
    if a is not None and b is not None and a * b < 0 and min(abs(a), abs(b)) > _OPPOSITE:
        yield warn(
            "source/contrast",
            "the structure is brighter than its surroundings where it was darker in the source "
            "model's training data, or the other way round: another contrast",
            found=f"{b:+.2f} standard deviations in these data",
            expected=f"{a:+.2f} in its training data",
            fix=fix,
        )
        return
    common = [n for n in target.profile if n in source.profile and n != BACKGROUND]
    shifts = {n: target.profile[n] - source.profile[n] for n in common}
    if len(common) > 1 and max(map(abs, shifts.values())) > _BRIGHTNESS_SHIFT:
        worst = max(shifts, key=lambda n: abs(shifts[n]))
        yield warn(
            "source/contrast",
            f"{worst} has another brightness than in the source model's training data",
            found=f"{target.profile[worst]:+.2f} standard deviations from the mean",
            expected=f"{source.profile[worst]:+.2f}",
            fix=fix,
        )
