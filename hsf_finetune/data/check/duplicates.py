"""The same scan, or the same label, under two names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hsf_finetune.data.check.findings import EXCLUDE, Finding
from hsf_finetune.data.check.members import Member
from hsf_finetune.data.check.portrait import unpacked

_NEARLY = 0.97
"""Correlation of small pictures; of 200 real crops no two come beyond 0.84."""
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
    if len(members) < 2:
        return
    views = np.stack([unpacked(m.portrait.view).ravel() for m in members])
    views -= views.mean(axis=1, keepdims=True)
    views /= np.maximum(np.linalg.norm(views, axis=1, keepdims=True), 1e-6)
    for n, member in enumerate(members):
        alike = views[:n] @ views[n] if n else np.empty(0)
        for other in np.flatnonzero(alike > _NEARLY)[:1]:
            twin = members[int(other)]
            if (
                twin.case.subject == member.case.subject
                or twin.measured.image_hash == member.measured.image_hash
            ):
                continue
            yield Finding(
                "warned",
                "set/nearly same image",
                "two scans of two subjects are nearly the same, as if one were a processed copy",
                member.image,
                member.case.name,
                f"correlation {alike[other]:.3f} with {twin.image}",
                f"below {_NEARLY}, as of different people",
                "list one of them under exclude:; if both are one person, write a subject: "
                "expression that says so",
            )


def _grouped(members: Sequence[Member], keys: Sequence[str]) -> list[list[Member]]:
    found: dict[str, list[Member]] = {}
    for member, key in zip(members, keys, strict=True):
        if key:
            found.setdefault(key, []).append(member)
    return [same for same in found.values() if len(same) > 1]
