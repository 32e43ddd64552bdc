"""Folders without a standard: words in names distinguish labels from images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.layouts.base_layout import (
    FolderLayout,
    FoundCase,
    ListedVolume,
    UnsureNote,
    shorten_list,
)
from hsf_finetune.describe.list_volumes import FolderListing
from hsf_finetune.describe.name_words import contrast, names_label, series_name, without_kind

EXPECTED_FILES = (
    "labels beside their images or in a folder of their own, with a word such as seg, dseg, "
    "label or mask in their names, in NIfTI or HDF5 files"
)


def find_cases(listing: FolderListing) -> FolderLayout | None:
    """Pairs images and labels by name: per-subject folders, flat folders, HDF5 files.

    A label has a word for labels in its name, or in a folder that not all volumes share.
    Its image is the volume whose folders and name are the same without such words; else the
    one in the same folders with the most words in common; else the only one in them.
    Several images that differ in contrast are its channels, where every label has them.
    """
    common = set.intersection(*({*volume.folders} for volume in listing.volumes))
    labels = [volume for volume in listing.volumes if _is_label(volume, common)]
    images = [volume for volume in listing.volumes if not _is_label(volume, common)]
    if not labels or not images:
        return None
    by_folders: dict[tuple[str, ...], list[ListedVolume]] = defaultdict(list)
    for image in images:
        by_folders[_plain_folders(image)].append(image)
    images_of = {label: _find_images(label, by_folders[_plain_folders(label)]) for label in labels}
    label_count = Counter(image for found in images_of.values() for image in found)
    one_kind = len({tuple(contrast(i.name) for i in found) for found in images_of.values()}) == 1
    left_out: list[tuple[ListedVolume, str]] = []
    cases: list[FoundCase] = []
    for label, found in images_of.items():
        names = [image.name for image in found]
        if not found:
            left_out.append((label, "a label without an image"))
        elif any(label_count[image] > 1 for image in found):
            left_out.append((label, f"one of several labels of {names[0]}"))
        elif len(found) > 1 and not (one_kind and len({*map(contrast, names)}) > 1):
            left_out.append((label, f"may belong to {shorten_list(names)}"))
        else:
            cases.append(_make_case(found, label))
    used = {volume for case in cases for volume in case.volumes} | {label for label, _ in left_out}
    left_out += [(image, "an image without a label") for image in images if image not in used]
    channels, notes = None, []
    if cases and len(cases[0].channels) > 1:
        channels = tuple(contrast(image.name) for image in cases[0].channels)
        text = (
            f"{' and '.join(channels)} share a label and are taken for channels of one input; for "
            "one of them alone, keep only its pattern"
        )
        notes.append(UnsureNote("patterns", text))
    title = _title(listing.volumes)
    return FolderLayout(title, tuple(cases), channels, tuple(notes), tuple(left_out))


def _is_label(volume: ListedVolume, common: set[str]) -> bool:
    return names_label(volume.name) or any(names_label(f) for f in {*volume.folders} - common)


def _plain_folders(volume: ListedVolume) -> tuple[str, ...]:
    """The folders without words for images and labels; those of nothing else are left out."""
    plain = ("_".join(without_kind(folder)) for folder in volume.folders)
    return tuple(folder for folder in plain if folder)


def _find_images(label: ListedVolume, images: Sequence[ListedVolume]) -> list[ListedVolume]:
    """The images that a label may belong to: one, or several of different contrast."""
    wanted = without_kind(label.name)
    same = [image for image in images if without_kind(image.name) == wanted]
    if same:
        return same
    shared: dict[ListedVolume, int] = {}
    for image in images:
        # One name has every word of the other, and they share at least one.
        common = {*without_kind(image.name)} & {*wanted}
        if common and common in ({*without_kind(image.name)}, {*wanted}):
            shared[image] = len(common)
    if shared:
        return [image for image, count in shared.items() if count == max(shared.values())]
    return [*images] if len(images) == 1 and label.folders == images[0].folders else []


def _make_case(images: Sequence[ListedVolume], label: ListedVolume) -> FoundCase:
    channels = tuple(sorted(images, key=lambda image: image.name))
    first = channels[0] if len(channels) == 1 else label
    return FoundCase(series_name((*first.folders, first.name)), channels, label)


def _title(volumes: Sequence[ListedVolume]) -> str:
    if all(is_hdf5(volume.ref.path) for volume in volumes):
        return "HDF5 files"
    return "folders of images and labels" if any(v.folders for v in volumes) else "one flat folder"
