"""The same scan, or the same label, under two names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.facts import z_scores
from hsf_finetune.check.findings import EXCLUDE, Finding
from hsf_finetune.check.measured_cases import Member

_NEARLY = 0.97
"""Correlation of small pictures; of 200 real crops no two come beyond 0.84."""
_AT_ONCE = 64
_SMALLEST_VOX = 50
"""Labels of fewer voxels may agree by chance."""


def duplicate_findings(members: Sequence[Member]) -> Iterator[Finding]:
    """Images and labels that come twice."""
    yield from _same_images(members)
    yield from _same_labels(members)
    yield from _nearly_same_images(members)


def _same_images(members: Sequence[Member]) -> Iterator[Finding]:
    for same in _grouped(members, [m.measured.image_hash for m in members]):
        first = same[0]
        for member in same[1:]:
            if member.case.images == first.case.images:
                continue  # one scan with the labels of two raters
            if member.case.subject == first.case.subject:
                yield Finding(
                    "warned",
                    "set/same image",
                    "the same scan comes twice, so it counts twice",
                    member.image,
                    member.case.name,
                    f"the same voxels as {first.image}",
                    fix="list one of them under the dataset's exclude:",
                )
            else:
                yield Finding(
                    "refused",
                    "set/same image",
                    "the same scan comes under the names of two subjects, so that it may both "
                    "train and validate",
                    member.image,
                    member.case.name,
                    f"the same voxels as {first.image}\nsubjects {member.case.subject} and "
                    f"{first.case.subject}",
                    "one subject per scan",
                    "list one of them under exclude:; if both are one person, write a subject: "
                    "expression that says so",
                )


def _same_labels(members: Sequence[Member]) -> Iterator[Finding]:
    keys = [
        m.measured.label_hash if sum(m.measured.row_voxels[1:]) >= _SMALLEST_VOX else ""
        for m in members
    ]
    for same in _grouped(members, keys):
        first = same[0]
        for member in same[1:]:
            if member.case.subject == first.case.subject:
                continue
            if member.measured.image_hash == first.measured.image_hash:
                continue  # said of the image
            yield Finding(
                "refused",
                "set/same label",
                "two scans of two subjects have the same label, voxel by voxel",
                member.label,
                member.case.name,
                f"the same voxels as {first.label}",
                "a label of its own for each scan",
                f"put the right label there, or {EXCLUDE}",
            )


def _nearly_same_images(members: Sequence[Member]) -> Iterator[Finding]:
    """Scans of different subjects that differ in noise, or by a little processing."""
    named: set[str] = set()
    for member, other, correlation in _alike(members):
        if (
            member.case.name in named
            or other.case.subject == member.case.subject
            or other.measured.image_hash == member.measured.image_hash
        ):
            continue
        named.add(member.case.name)
        yield Finding(
            "warned",
            "set/nearly same image",
            "two scans of two subjects are nearly the same, as if one were a processed copy",
            member.image,
            member.case.name,
            f"correlation {correlation:.3f} with {other.image}",
            f"below {_NEARLY}, as of different people",
            "list one of them under exclude:; if both are one person, write a subject: "
            "expression that says so",
        )


def _alike(members: Sequence[Member]) -> Iterator[tuple[Member, Member, float]]:
    """Each pair whose small pictures correlate, the later one first.

    In 32 bits the pictures of all would fill the memory; a few at a time do not.
    """
    for start in range(0, len(members), _AT_ONCE):
        these = _unit_vectors(members[start : start + _AT_ONCE])
        for before in range(0, start + 1, _AT_ONCE):
            table = these @ _unit_vectors(members[before : before + _AT_ONCE]).T
            for a, b in np.argwhere(table > _NEARLY):
                if before + b < start + a:
                    yield members[start + a], members[before + b], float(table[a, b])


def _unit_vectors(members: Sequence[Member]) -> npt.NDArray[np.float32]:
    """Their views, so that products of two are correlations."""
    views = np.stack([z_scores(m.portrait.view).ravel() for m in members])
    views -= views.mean(axis=1, keepdims=True)
    views /= np.maximum(np.linalg.norm(views, axis=1, keepdims=True), 1e-6)
    return views


def _grouped(members: Sequence[Member], keys: Sequence[str]) -> list[list[Member]]:
    found: dict[str, list[Member]] = {}
    for member, key in zip(members, keys, strict=True):
        if key:
            found.setdefault(key, []).append(member)
    return [same for same in found.values() if len(same) > 1]
