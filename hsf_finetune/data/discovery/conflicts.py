"""Conflicts between cases: two of them use the same file or name."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, ItemsView, Iterable, Iterator, Sequence
from typing import TypeVar

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.system.errors import DataError

Key = TypeVar("Key", bound=Hashable)
Owner = TypeVar("Owner")


def find_label_conflicts(pairs: Sequence[tuple[VolumeRef, VolumeRef]]) -> Iterator[DataError]:
    """Labels that several images of a dataset share, and images that serve as labels.

    `pairs` are first channel and label of every case.
    """
    images = {image for image, _ in pairs}
    labels = {label for _, label in pairs}
    if len(labels) == len(pairs) and labels.isdisjoint(images):
        return  # as nearly always, and groups of thousands take memory
    for label, users in _group((label, image) for image, label in pairs):
        if len(set(users)) > 1:
            yield DataError(
                "several images have the same label",
                file=label,
                found=", ".join(map(str, users)),
                expected="one label per image",
                fix="make the patterns narrower, or give the label the image's wildcards",
            )
        elif label in images:
            yield DataError(
                "a file is used as an image and as a label",
                file=label,
                found=f"the label of {users[0]}",
                fix="make mri: and label: (or mri_key: and label_key:) differ",
            )


def find_images_matched_twice(found: Sequence[tuple[str, VolumeRef]]) -> Iterator[DataError]:
    """Images that several patterns of a dataset match: each would count twice.

    `found` are name of the series and first channel of every case.
    """
    if len({image for _, image in found}) == len(found):
        return
    for image, series in _group((image, name) for name, image in found):
        if len(series) > 1:
            yield DataError(
                "several patterns match the same image",
                file=image,
                found="patterns " + ", ".join(series),
                expected="one pattern per image",
                fix="make the patterns narrower, so that each image belongs to one of them",
            )


def find_shared_images(
    cases: Sequence[tuple[str, str, VolumeRef, VolumeRef]],
) -> Iterator[DataError]:
    """Images that several datasets use with the same label, or for different subjects.

    One image with the labels of two raters is fine, as long as it is one subject.

    `cases` are dataset, subject, first channel and label of every case.
    """
    if len({dataset for dataset, *_ in cases}) < 2:
        return
    for image, users in _group((os.path.realpath(c[2].path), c) for c in cases):
        datasets, subjects, *_ = (set(values) for values in zip(*users, strict=True))
        used_twice = len({user[2:] for user in users}) < len(users)
        if len(datasets) > 1 and (used_twice or len(subjects) > 1):
            yield DataError(
                "several datasets use the same image"
                + (" for different subjects" if len(subjects) > 1 else " and label"),
                file=image,
                found=", ".join(f"{dataset} (subject {s})" for dataset, s, _, _ in users),
                expected="each annotated image in one dataset",
                fix="make their path: or patterns: differ, or list it under exclude:",
            )


def make_names_unique(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each case: the wanted one, with the series added where names collide.

    `wanted` are name, and name of the series, of every case.
    """
    uses = Counter(name for name, _ in wanted)
    fuller = [name if uses[name] == 1 else f"{name}__{series}" for name, series in wanted]
    taken = {*fuller}
    unique: dict[str, None] = {}
    for name in fuller:
        number, free = 2, name
        while free in unique or (free != name and free in taken):
            number, free = number + 1, f"{name}__{number}"
        unique[free] = None
    return [*unique]


def _group(pairs: Iterable[tuple[Key, Owner]]) -> ItemsView[Key, list[Owner]]:
    groups: dict[Key, list[Owner]] = defaultdict(list)
    for key, owner in pairs:
        groups[key].append(owner)
    return groups.items()
