"""Folders without a standard: words in names distinguish labels from images."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence

from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.label_origin import choose_labels
from hsf_finetune.describe.layouts.base_layout import (
    WITHOUT_IMAGE,
    WITHOUT_LABEL,
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

_SEPARATOR = re.compile(
    r"[_\-.+\s]+|(?<=[a-z\d])(?=(?:Seg|Label|Lbl|Mask|GT|Truth|Annot|Manual|Roi|ROI)[a-z]*(?![a-z]))"
)
"""Also before a word for a label, as in `hippoLabels`."""
_LABEL = re.compile(
    r"(d|lf|a|man|auto|prob)?seg(mentations?|s)?(tr|ts)?|labels?(tr|ts|maps?)?|lbls?|masks?|gt|truth"
    r"|ground_?truth|annot(ation)?s?|manual|delineations?|rois?|contours?|outlines?|a?parc(ellations?)?",
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
    one in the same folders with the most words in common; else the only one in them; else the
    one of the same name in the folders that are most like the label's. Several images that
    differ in contrast are its channels, where every label has them.
    """
    common = set.intersection(*({*volume.folders} for volume in listing.volumes))
    labels = [volume for volume in listing.volumes if _is_label(volume, common)]
    images = [volume for volume in listing.volumes if not _is_label(volume, common)]
    if not labels or not images:
        return None
    images_of = _pair_names(labels, images)
    worse, notes = choose_labels(images_of)
    left_out = [*worse.items()]
    images_of = {label: found for label, found in images_of.items() if label not in worse}
    label_count = Counter(image for found in images_of.values() for image in found)
    kinds = {tuple(map(_contrast_of, found)) for found in images_of.values() if found}
    cases: list[FoundCase] = []
    for label, found in images_of.items():
        names = [image.name for image in found]
        if not found:
            left_out.append((label, WITHOUT_IMAGE))
        elif any(label_count[image] > 1 for image in found):
            left_out.append((label, f"one of several labels of {names[0]}"))
        elif len(found) > 1 and not (len(kinds) == 1 and len({*map(_contrast_of, found)}) > 1):
            left_out.append((label, f"may belong to {shorten_list(names)}"))
        else:
            cases.append(_make_case(found, label))
    used = {volume for case in cases for volume in case.volumes} | {label for label, _ in left_out}
    left_out += [(image, WITHOUT_LABEL) for image in images if image not in used]
    channels = None
    if cases and len(cases[0].channels) > 1:
        channels = tuple(_contrast_of(image) for image in cases[0].channels)
        text = (
            f"{' and '.join(channels)} share a label and are taken for channels of one input; for "
            "one of them alone, keep only its pattern"
        )
        notes.append(UnsureNote("patterns", text))
    title = _title(listing.volumes)
    return FolderLayout(title, tuple(cases), channels, tuple(notes), tuple(left_out))


def _pair_names(
    labels: Sequence[ListedVolume], images: Sequence[ListedVolume]
) -> dict[ListedVolume, list[ListedVolume]]:
    """The images that each label may belong to."""
    by_folders: dict[tuple[str, ...], list[ListedVolume]] = defaultdict(list)
    by_name: dict[tuple[str, ...], list[ListedVolume]] = defaultdict(list)
    for image in images:
        by_folders[_plain_folders(image)].append(image)
        by_name[_without_kind(image.name)].append(image)
    found = {}
    for label in labels:
        near = by_folders[_plain_folders(label)]
        alone = len(near) == 1 and label.folders == near[0].folders
        found[label] = _match_words(label, near) or (near if alone else [])
    for label in (label for label, images in found.items() if not images):
        same = by_name[_without_kind(label.name)] if _without_kind(label.name) else []
        shared = {image: len(_folder_words(label) & _folder_words(image)) for image in same}
        found[label] = [image for image in same if shared[image] == max(shared.values())]
    return found


def _folder_words(volume: ListedVolume) -> set[str]:
    return {word for folder in volume.folders for word in _words(folder)}


def _is_label(volume: ListedVolume, common: set[str]) -> bool:
    return names_label(volume.name) or any(names_label(f) for f in {*volume.folders} - common)


def _plain_folders(volume: ListedVolume) -> tuple[str, ...]:
    """The folders without words for images and labels; those of nothing else are left out."""
    plain = ("_".join(_without_kind(folder)) for folder in volume.folders)
    return tuple(folder for folder in plain if folder)


def _match_words(label: ListedVolume, images: Sequence[ListedVolume]) -> list[ListedVolume]:
    """The images that a label may belong to, by the words of their names.

    There are several of different contrast, or where the names do not tell.
    """
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
    return [image for image, count in shared.items() if count == max(shared.values())]


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


def names_label(name: str) -> bool:
    """Whether a name contains a word for a label."""
    return any(_LABEL.fullmatch(word) for word in _words(name))


def _without_kind(name: str) -> tuple[str, ...]:
    """The words of a name, without those for images and labels."""
    return tuple(w for w in _words(name) if not (_LABEL.fullmatch(w) or _IMAGE.fullmatch(w)))


def telling_words(name: str) -> tuple[str, ...]:
    """The words of a name that tell one case from another: not those for kind and contrast."""
    return tuple(word for word in _without_kind(name) if not _CONTRAST.fullmatch(word))


def _contrast(name: str) -> str:
    """The contrast in a name, such as `T2w`; empty if there is none."""
    return "_".join(word for word in _words(name) if _CONTRAST.fullmatch(word))


def _contrast_of(image: ListedVolume) -> str:
    """The contrast in the name of an image, else in those of its folders."""
    return _contrast(image.name) or _contrast("_".join(image.folders))


def _series_name(parts: tuple[str, ...]) -> str:
    """Side and contrast from the words of folders and name, else `images`."""
    every = [word.lower() for part in parts for word in _words(part)]
    sides = [word for word in every if _SIDE.fullmatch(word)]
    contrasts = [word for word in every if _CONTRAST.fullmatch(word)]
    return sys.intern("_".join(dict.fromkeys(sides + contrasts)) or "images")
