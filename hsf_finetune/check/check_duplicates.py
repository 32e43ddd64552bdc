"""The same scan, or the same label, in two cases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.case_facts import EDGE_VOX, to_z_scores
from hsf_finetune.check.findings import EXCLUDE, Finding
from hsf_finetune.check.measured_cases import MeasuredCase

_NEARLY_SAME = 0.97
"""Correlation of thumbnails; of 200 real crops no two exceed 0.84."""
_BATCH = 512
_IN_MEMORY_BYTES = 2**22
"""Up to this size the block means of all cases are kept in memory."""
_ROUNDING = 1e-4
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
    for first, case in _find_equal(
        cases, [case.facts.read_measures().image_hash for case in cases]
    ):
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
        measures.label_hash if sum(measures.row_voxels[1:]) >= _SMALLEST_VOX else ""
        for measures in (case.facts.read_measures() for case in cases)
    ]
    for first, case in _find_equal(cases, keys):
        if case.subject == first.subject or _is_same_image(case, first):
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
        if case.name in reported or case.subject == other.subject or _is_same_image(case, other):
            continue
        reported.add(case.name)
        yield case.warn_image(
            "set/nearly same image",
            "two scans of two subjects are nearly the same, as if one were a processed copy",
            found=f"correlation {correlation:.3f} with {other.image_file}",
            expected=f"below {_NEARLY_SAME}, as between different people",
            fix=_EXCLUDE_OR_MERGE,
        )


def _is_same_image(one: MeasuredCase, other: MeasuredCase) -> bool:
    return one.facts.read_measures().image_hash == other.facts.read_measures().image_hash


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

    A correlation is a sum over the means of blocks of eight voxels and one over what is left in the
    blocks, which the lengths of both limit (Cauchy and Schwarz): only where that limit is high are
    the thumbnails themselves compared.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as coarse:
        left = np.empty(len(cases), dtype=np.float32)
        for n, case in enumerate(cases):
            blocks = _unit_vector(case).reshape(*[EDGE_VOX // 2, 2] * 3).mean(axis=(1, 3, 5))
            blocks *= np.float32(8**0.5)
            left[n] = max(1 - float((blocks * blocks).sum()), 0) ** 0.5
            coarse.write(blocks.tobytes())
        for first, second in _pairs_of_batches(len(cases)):
            later, earlier = _read_rows(coarse, first), _read_rows(coarse, second)
            limits = later @ earlier.T + left[first, None] * left[second]
            for a, b in np.argwhere(limits > _NEARLY_SAME - _ROUNDING):
                if second.start + b < first.start + a:
                    case, other = cases[first.start + a], cases[second.start + b]
                    correlation = float(_unit_vector(case) @ _unit_vector(other))
                    if correlation > _NEARLY_SAME:
                        yield case, other, correlation


def _pairs_of_batches(count: int) -> Iterator[tuple[slice, slice]]:
    """Each batch of so many cases with itself and each earlier one."""
    batches = [slice(start, start + _BATCH) for start in range(0, count, _BATCH)]
    for n, batch in enumerate(batches):
        yield from ((batch, earlier) for earlier in batches[: n + 1])


def _read_rows(coarse: IO[bytes], batch: slice) -> npt.NDArray[np.float32]:
    """The block means of a batch, (cases, blocks)."""
    size = 4 * (EDGE_VOX // 2) ** 3
    coarse.seek(size * batch.start)
    rows = coarse.read(size * (batch.stop - batch.start))
    return np.frombuffer(rows, dtype=np.float32).reshape(-1, size // 4)


def _unit_vector(case: MeasuredCase) -> npt.NDArray[np.float32]:
    """A thumbnail as a vector whose products with others are correlations, (voxels,)."""
    vector = to_z_scores(case.facts.read_thumbnails().image).ravel()
    vector -= vector.mean()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)
