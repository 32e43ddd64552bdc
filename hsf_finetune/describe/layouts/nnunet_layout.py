"""nnU-Net's raw data and the Medical Segmentation Decathlon: imagesTr, labelsTr, dataset.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.label_names import read_json
from hsf_finetune.describe.layouts.base_layout import Annotated, Doubt, Item, Layout
from hsf_finetune.describe.list_volumes import Listing
from hsf_finetune.system.errors import DataError

LOOKED_FOR = "imagesTr and labelsTr (nnU-Net's raw data, Medical Segmentation Decathlon)"

_CHANNEL = re.compile(r"(.+)_(\d{4})")


def look(listing: Listing) -> Layout | None:
    """Pairs `labelsTr/X` with `imagesTr/X` or with `imagesTr/X_0000`, `X_0001`, ...

    Raises:
        DataError: the folder holds several such datasets.
    """
    items = [item for item in listing.items if not is_hdf5(item.ref.path)]
    homes = sorted({i.folders[:-1] for i in items if i.folders[-1:] == ("labelsTr",)})
    homes = [h for h in homes if any(i.folders == (*h, "imagesTr") for i in items)]
    if not homes:
        return None
    if len(homes) > 1:
        raise DataError(
            "the folder holds several datasets",
            file=listing.root,
            found=", ".join("/".join(home) or "." for home in homes),
            fix=f"hsf-finetune init {listing.root.joinpath(*homes[0])}",
        )
    home = homes[0]
    images: dict[str, dict[int, Item]] = {}
    labels = {i.name: i for i in items if i.folders == (*home, "labelsTr")}
    for image in (i for i in items if i.folders == (*home, "imagesTr")):
        match = _CHANNEL.fullmatch(image.name)
        name, number = (match[1], int(match[2])) if match else (image.name, 0)
        if image.name in labels:
            name, number = image.name, 0
        images.setdefault(name, {})[number] = image
    cases = [
        Annotated("images", tuple(images[name][n] for n in sorted(images[name])), label)
        for name, label in labels.items()
        if name in images
    ]
    used = {item for case in cases for item in case.items}
    left_out = tuple((i, _reason(i, home)) for i in listing.items if i not in used)
    description = listing.root.joinpath(*home, "dataset.json")
    channels = channel_names(description)
    count = max((len(case.channels) for case in cases), default=0)
    doubts = []
    if channels is not None and len(channels) != count:
        text = f"dataset.json names {len(channels)} channels, the cases have {count} files each"
        doubts.append(Doubt("channel_names", text))
        channels = None
    kind = (
        "nnU-Net's raw data" if any(_CHANNEL.fullmatch(c.channels[0].name) for c in cases) else ""
    )
    title = kind or "imagesTr and labelsTr, as in the Medical Segmentation Decathlon"
    return Layout(title, tuple(cases), channels, tuple(doubts), left_out)


def channel_names(description: Path) -> tuple[str, ...] | None:
    """The channels that a dataset.json names (`channel_names`, or `modality` of old)."""
    content = read_json(description)
    given = content.get("channel_names", content.get("modality")) if content else None
    if not isinstance(given, Mapping) or not all(re.fullmatch(r"\d+", str(k)) for k in given):
        return None
    return tuple(str(given[key]) for key in sorted(given, key=lambda k: int(str(k)))) or None


# -------------------------------------------------------------------- internals
def _reason(item: Item, home: tuple[str, ...]) -> str:
    if item.folders == (*home, "imagesTr"):
        return "an image without a label"
    if item.folders == (*home, "labelsTr"):
        return "a label without an image"
    return f"in {'/'.join(item.folders) or 'the folder itself'}, which holds no training case"
