"""What a source model was trained on, in a few numbers, against the data at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hsf_finetune.check.findings import Finding
from hsf_finetune.check.measured_cases import Member
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.labels.classes import BACKGROUND

_SPACING_RATIO = 1.5
_SIZE_RATIO = 2.0
_OPPOSITE = 0.2
"""Contrasts of opposite sign count where both are at least this strong."""
_PROFILE_SHIFT = 1.0
"""In standard deviations of the z-normalised image."""


def summarise_data(members: Sequence[Member]) -> DataSummary | None:
    """The summary of some cases; None of none."""
    if not members:
        return None
    measures = [m.measured for m in members]
    contrasts = [m.contrast for m in measures if m.contrast is not None]
    means: dict[str, list[float]] = {}
    for member in members:
        protocol = member.case.protocol
        for names, mean in zip(protocol.row_sets, member.measured.row_mean, strict=True):
            if len(names) == 1 and mean is not None:
                means.setdefault(next(iter(names)), []).append(mean)
    return DataSummary(
        len(members),
        tuple(float(n) for n in np.median([m.spacing_mm for m in measures], axis=0)),
        tuple(int(n) for n in np.median([m.shape for m in measures], axis=0)),
        float(np.median(contrasts)) if contrasts else None,
        {name: float(np.median(values)) for name, values in means.items()},
    )


def source_findings(
    source: DataSummary,
    here: DataSummary,
    file: str,
    target_spacing_mm: Sequence[float] | None = None,
) -> Iterator[Finding]:
    """Where the data differ from what the source model has seen.

    Args:
        source: of the source model.
        here: of the cases that are to train.
        file: of the source model, for messages.
        target_spacing_mm: voxel size that scans are resampled to, if any.
    """
    spacing = np.array(target_spacing_mm or here.spacing_mm)
    ratio = spacing / np.array(source.spacing_mm)
    if max(ratio.max(), (1 / ratio).max()) > _SPACING_RATIO:
        wanted = ", ".join(f"{n:.3g}" for n in source.spacing_mm)
        yield Finding(
            "warned",
            "source/spacing",
            "the source model was trained on another voxel size",
            file,
            found=" x ".join(f"{n:.3g}" for n in spacing) + " mm in these data",
            expected=" x ".join(f"{n:.3g}" for n in source.spacing_mm) + " mm, as it has seen",
            fix=f"datasets.target_spacing_mm=[{wanted}]",
        )
    extents = np.array(here.spacing_mm) * here.size_vox
    extents = extents / (np.array(source.spacing_mm) * source.size_vox)
    if extents.max() > _SIZE_RATIO or extents.min() < 1 / _SIZE_RATIO:
        yield Finding(
            "warned",
            "source/size",
            "the source model was trained on volumes of another extent",
            file,
            found=f"{here.size_vox} voxels in these data",
            expected=f"{source.size_vox} voxels of its own size",
            fix="crop (or extend) the scans to what it has seen, since z-normalisation and context "
            "depend on it",
        )
    yield from _contrast(source, here, file)


def _contrast(source: DataSummary, here: DataSummary, file: str) -> Iterator[Finding]:
    fix = "train the encoder first: finetuning.mode=encoder, or finetuning.mode=both"
    a, b = source.contrast, here.contrast
    if a is not None and b is not None and a * b < 0 and min(abs(a), abs(b)) > _OPPOSITE:
        yield Finding(
            "warned",
            "source/contrast",
            "the structure is brighter than its surroundings where the source model saw it "
            "darker, or the other way round: another contrast",
            file,
            found=f"{b:+.2f} standard deviations in these data",
            expected=f"{a:+.2f}, as it has seen",
            fix=fix,
        )
        return
    common = [n for n in here.profile if n in source.profile and n != BACKGROUND]
    shifts = {n: here.profile[n] - source.profile[n] for n in common}
    if len(common) > 1 and max(map(abs, shifts.values())) > _PROFILE_SHIFT:
        worst = max(shifts, key=lambda n: abs(shifts[n]))
        yield Finding(
            "warned",
            "source/contrast",
            f"{worst} has another brightness than the source model has seen",
            file,
            found=f"{here.profile[worst]:+.2f} standard deviations from the mean",
            expected=f"{source.profile[worst]:+.2f}",
            fix=fix,
        )
