"""The same scan, or the same label, in two cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.case_facts import to_z_scores
from hsf_finetune.check.findings import EXCLUDE, Finding
from hsf_finetune.check.measured_cases import MeasuredCase

_NEARLY_SAME = 0.97
"""Correlation of thumbnails; of 200 real crops no two exceed 0.84."""
_BATCH = 64
_SMALLEST_VOX = 50
"""Labels with fewer voxels may agree by chance."""
_EXCLUDE_OR_MERGE = (
    "list one of them under exclude:; if both are one person, write a subject: expression that "
    "says so"
)


def find_duplicates(cases: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Images and labels that occur twice."""
    yield from _same_images(cases)
    yield from _same_labels(cases)
    yield from _nearly_same_images(cases)


def _same_images(cases: Sequence[MeasuredCase]) -> Iterator[Finding]:
    for first, case in _find_equal(cases, [case.measures.image_hash for case in cases]):
        if case.case.images == first.case.images:
            continue  # one scan with the labels of two raters
        if case.subject == first.subject:
            yield case.warn_image(
                "set/same image",
                "the same scan occurs twice, so it counts twice",
                found=f"the same voxels as {first.image_file}",
                fix="list one of them under the dataset's exclude:",
            )
        else:
            yield Finding(
                "refused",
                "set/same image",
                "the same scan occurs under the names of two subjects, so it may both train and "
                "validate",
                case.image_file,
                case.name,
                f"the same voxels as {first.image_file}\nsubjects {case.subject} and "
                f"{first.subject}",
                "one subject per scan",
                _EXCLUDE_OR_MERGE,
            )


def _same_labels(cases: Sequence[MeasuredCase]) -> Iterator[Finding]:
    keys = [
        case.measures.label_hash if sum(case.measures.row_voxels[1:]) >= _SMALLEST_VOX else ""
        for case in cases
    ]
    for first, case in _find_equal(cases, keys):
        same_image = case.measures.image_hash == first.measures.image_hash
        if case.subject == first.subject or same_image:
            continue  # no mistake, or reported for the image
        yield Finding(
            "refused",
            "set/same label",
            "two scans of two subjects have the same label, voxel by voxel",
            case.label_file,
            case.name,
            f"the same voxels as {first.label_file}",
            "a label of its own for each scan",
            f"put the right label there, or {EXCLUDE}",
        )


def _nearly_same_images(cases: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Scans of different subjects that differ in noise, or by a little processing."""
    reported: set[str] = set()
    for case, other, correlation in _find_similar(cases):
        same_image = case.measures.image_hash == other.measures.image_hash
        if case.name in reported or case.subject == other.subject or same_image:
            continue
        reported.add(case.name)
        yield case.warn_image(
            "set/nearly same image",
            "two scans of two subjects are nearly the same, as if one were a processed copy",
            found=f"correlation {correlation:.3f} with {other.image_file}",
            expected=f"below {_NEARLY_SAME}, as between different people",
            fix=_EXCLUDE_OR_MERGE,
        )


def _find_equal(
    cases: Sequence[MeasuredCase], keys: Sequence[str]
) -> Iterator[tuple[MeasuredCase, MeasuredCase]]:
    """The first case with a key and each later one with the same key; empty keys do not count."""
    first: dict[str, MeasuredCase] = {}
    for case, key in zip(cases, keys, strict=True):
        if key and first.setdefault(key, case) is not case:
            yield first[key], case


def _find_similar(
    cases: Sequence[MeasuredCase],
) -> Iterator[tuple[MeasuredCase, MeasuredCase, float]]:
    """Each pair whose thumbnails correlate, the later case first.

    In 32 bits the thumbnails of all cases would fill the memory; those of a batch do not.
    """
    for start in range(0, len(cases), _BATCH):
        later = _unit_vectors(cases[start : start + _BATCH])
        for before in range(0, start + 1, _BATCH):
            table = later @ _unit_vectors(cases[before : before + _BATCH]).T
            for a, b in np.argwhere(table > _NEARLY_SAME):
                if before + b < start + a:
                    yield cases[start + a], cases[before + b], float(table[a, b])


def _unit_vectors(cases: Sequence[MeasuredCase]) -> npt.NDArray[np.float32]:
    """Thumbnails as vectors whose products are correlations, (cases, voxels)."""
    vectors = np.stack([to_z_scores(case.thumbnails.image).ravel() for case in cases])
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors
