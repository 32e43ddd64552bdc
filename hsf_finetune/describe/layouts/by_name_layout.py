"""Folders without a standard: words in names distinguish labels from images."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.layouts.base_layout import (
    FolderLayout,
    FoundCase,
    ListedVolume,
    UnsureNote,
)
from hsf_finetune.describe.list_volumes import FolderListing
from hsf_finetune.system.console import shorten_list

EXPECTED_FILES = (
    "labels beside their images or in a folder of their own, with a word such as seg, dseg, "
    "label or mask in their names, in NIfTI or HDF5 files"
)

_SEPARATOR = re.compile(r"[_\-.\s]+")
_LABEL = re.compile(
    r"(d|lf|man|auto)?seg(mentations?|s)?(tr|ts)?|labels?(tr|ts)?|lbls?|masks?|gt|truth"
    r"|ground_?truth|annot(ation)?s?|manual|delineations?|rois?|contours?|outlines?",
    re.IGNORECASE,
)
"""Words in the name of a label that its image's name lacks."""
_IMAGE = re.compile(
    r"im|img|imgs|images?(tr|ts)?|scans?|mri?|raw|orig(inal)?|intensity", re.IGNORECASE
)
"""Words in the name of an image that its label's name lacks."""
_SIDE = re.compile(r"l|r|lh|rh|left|right", re.IGNORECASE)
_CONTRAST = re.compile(
    r"t1|t2|t1w|t2w|t1ce|t1c|t1gd|t2star|t2starw|flair|pd|pdw|mprage|space|tse|dwi|adc|swi|ct|pet"
    r"|inv\d?|unit1|averaged?|mean",
    re.IGNORECASE,
)


def find_cases(listing: FolderListing) -> FolderLayout | None:
    """Pairs images and labels by name: per-subject folders, flat folders, HDF5 files.

    A label has a word for labels in its name, or in a folder that not all volumes share.
    Its image is the volume whose folders and name are the same without such words; else the
    one in the same folders with the most words in common; else the only one in them.
    Several images that differ in contrast are its channels, where every label has them.
    """
    common = set.intersection(*({*volume.folders} for volume in listing.volumes))
    labels = [volume for volume in listing.volumes if is_label(volume, common)]
    images = [volume for volume in listing.volumes if not is_label(volume, common)]
    if not labels or not images:
        return None
    by_folders: dict[tuple[str, ...], list[ListedVolume]] = defaultdict(list)
    for image in images:
        by_folders[_plain_folders(image)].append(image)
    images_of = {label: _find_images(label, by_folders[_plain_folders(label)]) for label in labels}
    label_count = Counter(image for found in images_of.values() for image in found)
    one_kind = len({tuple(_contrast(i.name) for i in found) for found in images_of.values()}) == 1
    left_out: list[tuple[ListedVolume, str]] = []
    cases: list[FoundCase] = []
    for label, found in images_of.items():
        names = [image.name for image in found]
        if not found:
            left_out.append((label, "a label without an image"))
        elif any(label_count[image] > 1 for image in found):
            left_out.append((label, f"one of several labels of {names[0]}"))
        elif len(found) > 1 and not (one_kind and len({*map(_contrast, names)}) > 1):
            left_out.append((label, f"may belong to {shorten_list(names)}"))
        else:
            cases.append(_make_case(found, label))
    used = {volume for case in cases for volume in case.volumes} | {label for label, _ in left_out}
    left_out += [(image, "an image without a label") for image in images if image not in used]
    channels, notes = None, []
    if cases and len(cases[0].channels) > 1:
        channels = tuple(_contrast(image.name) for image in cases[0].channels)
        text = (
            f"{' and '.join(channels)} share a label and are taken for channels of one input; for "
            "one of them alone, keep only its pattern"
        )
        notes.append(UnsureNote("patterns", text))
    title = _title(listing.volumes)
    return FolderLayout(title, tuple(cases), channels, tuple(notes), tuple(left_out))


def is_label(volume: ListedVolume, common: set[str]) -> bool:
    """Whether a volume is named like a label; folders of every volume are `common`."""
    return _names_label(volume.name) or any(_names_label(f) for f in {*volume.folders} - common)


def _plain_folders(volume: ListedVolume) -> tuple[str, ...]:
    """The folders without words for images and labels; those of nothing else are left out."""
    plain = ("_".join(_without_kind(folder)) for folder in volume.folders)
    return tuple(folder for folder in plain if folder)


def _find_images(label: ListedVolume, images: Sequence[ListedVolume]) -> list[ListedVolume]:
    """The images that a label may belong to: one, or several of different contrast."""
    wanted = _without_kind(label.name)
    same = [image for image in images if _without_kind(image.name) == wanted]
    if same:
        return same
    shared: dict[ListedVolume, int] = {}
    for image in images:
        # One name has every word of the other, and they share at least one.
        common = {*_without_kind(image.name)} & {*wanted}
        if common and common in ({*_without_kind(image.name)}, {*wanted}):
            shared[image] = len(common)
    if shared:
        return [image for image, count in shared.items() if count == max(shared.values())]
    return [*images] if len(images) == 1 and label.folders == images[0].folders else []


def _make_case(images: Sequence[ListedVolume], label: ListedVolume) -> FoundCase:
    channels = tuple(sorted(images, key=lambda image: image.name))
    first = channels[0] if len(channels) == 1 else label
    return FoundCase(_series_name((*first.folders, first.name)), channels, label)


def _title(volumes: Sequence[ListedVolume]) -> str:
    if all(is_hdf5(volume.ref.path) for volume in volumes):
        return "HDF5 files"
    return "folders of images and labels" if any(v.folders for v in volumes) else "one flat folder"


def _words(name: str) -> tuple[str, ...]:
    """The words of a name, which are separated by `_`, `-`, `.` and blanks."""
    return tuple(word for word in _SEPARATOR.split(name) if word)


def _names_label(name: str) -> bool:
    """Whether a name contains a word for a label."""
    return any(_LABEL.fullmatch(word) for word in _words(name))


def _without_kind(name: str) -> tuple[str, ...]:
    """The words of a name, without those for images and labels."""
    return tuple(w for w in _words(name) if not (_LABEL.fullmatch(w) or _IMAGE.fullmatch(w)))


def _contrast(name: str) -> str:
    """The contrast in a name, such as `T2w`; empty if there is none."""
    return "_".join(word for word in _words(name) if _CONTRAST.fullmatch(word))


def _series_name(parts: tuple[str, ...]) -> str:
    """Side and contrast from the words of folders and name, else `images`."""
    every = [word.lower() for part in parts for word in _words(part)]
    sides = [word for word in every if _SIDE.fullmatch(word)]
    contrasts = [word for word in every if _CONTRAST.fullmatch(word)]
    return "_".join(dict.fromkeys(sides + contrasts)) or "images"
