"""nnU-Net's raw data and the Medical Segmentation Decathlon: imagesTr, labelsTr, dataset.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hsf_finetune.data.discovery.channel_numbers import split_channel
from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.label_names import read_json
from hsf_finetune.describe.layouts.base_layout import (
    WITHOUT_IMAGE,
    WITHOUT_LABEL,
    FolderLayout,
    FoundCase,
    ListedVolume,
    UnsureNote,
)
from hsf_finetune.describe.list_volumes import FolderListing
from hsf_finetune.system.errors import DataError

EXPECTED_FILES = "imagesTr and labelsTr (nnU-Net's raw data, Medical Segmentation Decathlon)"


def find_cases(listing: FolderListing) -> FolderLayout | None:
    """Pairs `labelsTr/X` with `imagesTr/X` or with `imagesTr/X_0000`, `X_0001`, ...

    Raises:
        DataError: the folder contains several such datasets.
    """
    volumes = [volume for volume in listing.volumes if not is_hdf5(volume.ref.path)]
    parents = {
        kind: {v.folders[:-1] for v in volumes if v.folders[-1:] == (kind,)}
        for kind in ("imagesTr", "labelsTr")
    }
    datasets = sorted(parents["imagesTr"] & parents["labelsTr"])
    if not datasets:
        return None
    if len(datasets) > 1:
        raise DataError(
            "the folder contains several datasets",
            file=listing.root,
            found=", ".join("/".join(folder) or "." for folder in datasets),
            fix=f"hsf-finetune init {listing.root.joinpath(*datasets[0])}",
        )
    folder = datasets[0]
    images: dict[str, dict[int, ListedVolume]] = {}
    labels = {v.name: v for v in volumes if v.folders == (*folder, "labelsTr")}
    for image in (v for v in volumes if v.folders == (*folder, "imagesTr")):
        split = None if image.name in labels else split_channel(image.name)
        name, number = split or (image.name, 0)
        images.setdefault(name, {})[number] = image
    cases = [
        FoundCase("images", tuple(images[name][n] for n in sorted(images[name])), label)
        for name, label in labels.items()
        if name in images
    ]
    used = {volume for case in cases for volume in case.volumes}
    left_out = tuple((v, _why_unused(v, folder)) for v in listing.volumes if v not in used)
    channels = read_channel_names(listing.root.joinpath(*folder, "dataset.json"))
    count = max((len(case.channels) for case in cases), default=0)
    notes = []
    if channels is not None and len(channels) != count:
        text = f"dataset.json names {len(channels)} channels, the cases have {count} files each"
        notes.append(UnsureNote("channel_names", text))
        channels = None
    title = "imagesTr and labelsTr, as in the Medical Segmentation Decathlon"
    if any(split_channel(case.channels[0].name) for case in cases):
        title = "nnU-Net's raw data"
    return FolderLayout(title, tuple(cases), channels, tuple(notes), left_out)


def read_channel_names(file: Path) -> tuple[str, ...] | None:
    """The channels that a dataset.json names (`channel_names`, formerly `modality`)."""
    content = read_json(file)
    given = content.get("channel_names", content.get("modality")) if content else None
    if not isinstance(given, Mapping) or not all(re.fullmatch(r"\d+", str(k)) for k in given):
        return None
    return tuple(str(given[key]) for key in sorted(given, key=lambda k: int(str(k)))) or None


def _why_unused(volume: ListedVolume, folder: tuple[str, ...]) -> str:
    if volume.folders == (*folder, "imagesTr"):
        return WITHOUT_LABEL
    if volume.folders == (*folder, "labelsTr"):
        return WITHOUT_IMAGE
    place = "/".join(volume.folders) or "the folder itself"
    return f"in {place}, which contains no training case"
