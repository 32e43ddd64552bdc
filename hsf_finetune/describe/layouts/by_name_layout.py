"""Folders without a standard: labels are told by words in names, images by what they share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.layouts.base_layout import Annotated, Doubt, Item, Layout, some
from hsf_finetune.describe.list_volumes import Listing
from hsf_finetune.describe.name_words import contrast, says_label, series_name, without_kind

LOOKED_FOR = (
    "labels beside their images or in a folder of their own, told by a word such as seg, dseg, "
    "label or mask in their names, in NIfTI or HDF5 files"
)


def look(listing: Listing) -> Layout | None:
    """Pairs images and labels by name: per-subject folders, flat folders, HDF5 files.

    A label is what has a word for one in its name, or in a folder that not all volumes
    share. Its image is the volume whose folders and name are the same without such words;
    else the one in the same folders with the most words in common; else the only one
    there. Several that differ in contrast are its channels, where every label has them.
    """
    common = set.intersection(*({*item.folders} for item in listing.items))
    labels = [i for i in listing.items if _is_label(i, common)]
    images = [i for i in listing.items if not _is_label(i, common)]
    if not labels or not images:
        return None
    by_place: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for image in images:
        by_place[_place(image)].append(image)
    chosen = {label: _partners(label, by_place[_place(label)]) for label in labels}
    claims = Counter(image for found in chosen.values() for image in found)
    doubts: list[Doubt] = []
    left_out: list[tuple[Item, str]] = []
    cases: list[Annotated] = []
    several = {tuple(contrast(i.name) for i in found) for found in chosen.values()}
    for label, found in chosen.items():
        if not found:
            left_out.append((label, "a label without an image"))
        elif any(claims[image] > 1 for image in found):
            left_out.append((label, f"one of several labels of {found[0].name}"))
        elif len(found) > 1 and (len(several) > 1 or len({contrast(i.name) for i in found}) < 2):
            left_out.append((label, f"may belong to {some([i.name for i in found])}"))
        else:
            cases.append(_case(found, label, len(cases)))
    used = {item for case in cases for item in case.items} | {item for item, _ in left_out}
    left_out += [(i, "an image without a label") for i in images if i not in used]
    if not cases:
        return Layout(_title(listing.items), (), None, (), tuple(left_out))
    names = _channel_names(cases)
    if names:
        text = f"{' and '.join(names)} share a label and are taken for channels of one input"
        doubts.append(Doubt("patterns", f"{text}; for one of them alone, keep only its pattern"))
    return Layout(_title(listing.items), tuple(cases), names, tuple(doubts), tuple(left_out))


# -------------------------------------------------------------------- internals
def _is_label(item: Item, common: set[str]) -> bool:
    return says_label(item.name) or any(says_label(f) for f in item.folders if f not in common)


def _place(item: Item) -> tuple[str, ...]:
    """The folders without words for kinds; a folder for images or for labels counts not at all."""
    kept = ("_".join(without_kind(folder)) for folder in item.folders)
    return tuple(folder for folder in kept if folder)


def _partners(label: Item, images: Sequence[Item]) -> list[Item]:
    """The images that a label may belong to: one, or several of different contrast."""
    wanted = without_kind(label.name)
    same = [image for image in images if without_kind(image.name) == wanted]
    if same:
        return same
    near = [i for i in images if _related(without_kind(i.name), wanted)]
    if near:
        shared = {i: len({*without_kind(i.name)} & {*wanted}) for i in near}
        best = max(shared.values())
        return [image for image, count in shared.items() if count == best]
    return [*images] if len(images) == 1 and label.folders == images[0].folders else []


def _related(image: tuple[str, ...], label: tuple[str, ...]) -> bool:
    """Whether one name has every word of the other, and they share at least one."""
    return bool(image and label) and ({*image} <= {*label} or {*label} <= {*image})


def _case(images: Sequence[Item], label: Item, number: int) -> Annotated:
    ordered = sorted(images, key=lambda image: image.name)
    first = ordered[0] if len(ordered) == 1 else label
    return Annotated(series_name((*first.folders, first.name)), tuple(ordered), label)


def _channel_names(cases: Sequence[Annotated]) -> tuple[str, ...] | None:
    if len(cases[0].channels) < 2:
        return None
    return tuple(contrast(image.name) for image in cases[0].channels)


def _title(items: Sequence[Item]) -> str:
    if all(is_hdf5(item.ref.path) for item in items):
        return "HDF5 files"
    return "folders of images and labels" if any(i.folders for i in items) else "one flat folder"
