"""Conflicts between cases: two of them use the same file or name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.system.errors import DataError

Key = TypeVar("Key", bound=Hashable)
Owner = TypeVar("Owner")


def find_label_conflicts(pairs: Sequence[tuple[VolumeRef, VolumeRef]]) -> list[DataError]:
    """Labels that several images of a dataset share, and images that serve as labels.

    Args:
        pairs: first channel and label of every case.
    """
    images = {image for image, _ in pairs}
    problems = []
    for label, users in _grouped((label, image) for image, label in pairs):
        if len(set(users)) > 1:
            problems.append(
                DataError(
                    "several images have the same label",
                    file=label,
                    found=", ".join(map(str, users)),
                    expected="one label per image",
                    fix="make the patterns narrower, or give the label the image's wildcards",
                )
            )
        elif label in images:
            problems.append(
                DataError(
                    "a file is used as an image and as a label",
                    file=label,
                    found=f"the label of {users[0]}",
                    fix="make mri: and label: (or mri_key: and label_key:) differ",
                )
            )
    return problems


def find_images_matched_twice(found: Sequence[tuple[str, VolumeRef]]) -> list[DataError]:
    """Images that several patterns of a dataset match: each would count twice.

    Args:
        found: name of the series and first channel of every case.
    """
    return [
        DataError(
            "several patterns match the same image",
            file=image,
            found="patterns " + ", ".join(series),
            expected="one pattern per image",
            fix="make the patterns narrower, so that each image belongs to one of them",
        )
        for image, series in _grouped((image, name) for name, image in found)
        if len(series) > 1
    ]


def find_shared_images(
    cases: Sequence[tuple[str, str, VolumeRef, VolumeRef]],
) -> list[DataError]:
    """Images that several datasets use with the same label, or for different subjects.

    One image with the labels of two raters is fine, as long as it is one subject.

    Args:
        cases: dataset, subject, first channel and label of every case.
    """
    problems = []
    for image, users in _grouped((c[2].path.resolve(), c) for c in cases):
        subjects = sorted({subject for _, subject, _, _ in users})
        used = [(first, label) for _, _, first, label in users]
        if len({dataset for dataset, _, _, _ in users}) < 2:
            continue
        if len(set(used)) < len(used) or len(subjects) > 1:
            problems.append(
                DataError(
                    "several datasets use the same image"
                    + (" for different subjects" if len(subjects) > 1 else " and label"),
                    file=image,
                    found=", ".join(f"{dataset} (subject {s})" for dataset, s, _, _ in users),
                    expected="each annotated image in one dataset",
                    fix="make their path: or patterns: differ, or list it under exclude:",
                )
            )
    return problems


def make_names_unique(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each case: the wanted one, with the series added where names collide.

    Args:
        wanted: name, and name of the series, of every case.
    """
    uses = Counter(name for name, _ in wanted)
    fuller = [name if uses[name] == 1 else f"{name}__{series}" for name, series in wanted]
    reserved = set(fuller)
    taken: set[str] = set()
    unique = []
    for name in fuller:
        number, free = 2, name
        while free in taken or (free != name and free in reserved):
            number, free = number + 1, f"{name}__{number}"
        taken.add(free)
        unique.append(free)
    return unique


def _grouped(pairs: Iterable[tuple[Key, Owner]]) -> list[tuple[Key, list[Owner]]]:
    groups: dict[Key, list[Owner]] = {}
    for key, owner in pairs:
        groups.setdefault(key, []).append(owner)
    return list(groups.items())
