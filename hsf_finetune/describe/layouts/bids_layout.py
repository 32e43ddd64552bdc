"""BIDS: labels are `*_dseg` files, mostly in derivatives; entities tell which image is theirs.

Brain Imaging Data Structure, version 1.10, "Imaging data type: anatomy" and
"Segmentations" of derivatives.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.layouts.base_layout import Annotated, Doubt, Item, Layout, some
from hsf_finetune.describe.list_volumes import Listing

LOOKED_FOR = "BIDS: sub-* files, with labels *_dseg.nii.gz beside them or below derivatives"

_LABEL_SUFFIXES = ("dseg", "mask")
_NO_IMAGE = ("probseg", "bold", "dwi", "sbref", "epi", "phase", "phasediff", "magnitude1")
_ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")
_OF_A_SCAN = ("sub", "ses", "run", "hemi")
"""Entities that no two labels of one image differ in."""


@dataclass(frozen=True)
class Name:
    """A file name of BIDS: `sub-01_hemi-L_T2w` has the entities sub and hemi, suffix T2w."""

    entities: Mapping[str, str]
    suffix: str


def parse(name: str) -> Name | None:
    """Takes a file name apart; None if it is not of BIDS."""
    *parts, suffix = name.split("_")
    pairs = [_ENTITY.fullmatch(part) for part in parts]
    if not pairs or not all(pairs) or not suffix.isalnum():
        return None
    entities = {match[1]: match[2] for match in pairs if match}
    return Name(entities, suffix) if "sub" in entities else None


def look(listing: Listing) -> Layout | None:
    """Pairs every dseg file with the image that shares the most entities with it.

    Among images of several contrasts the one that most labels have is taken, T2w first.
    """
    parsed = {
        item: name
        for item in listing.items
        if not is_hdf5(item.ref.path) and (name := parse(item.name)) is not None
    }
    suffix = next((s for s in _LABEL_SUFFIXES if any(n.suffix == s for n in parsed.values())), None)
    if suffix is None:
        return None
    labels = [item for item, name in parsed.items() if name.suffix == suffix]
    apart = {*_LABEL_SUFFIXES, *_NO_IMAGE}
    images = [item for item, name in parsed.items() if name.suffix not in apart]
    by_subject: dict[str, list[Item]] = defaultdict(list)
    for image in images:
        by_subject[parsed[image].entities["sub"]].append(image)
    fitting = {
        label: _fitting(label, by_subject[parsed[label].entities["sub"]], parsed)
        for label in labels
    }
    contrasts = Counter(s for found in fitting.values() for s in {parsed[i].suffix for i in found})
    order = sorted(contrasts, key=lambda s: (-contrasts[s], s != "T2w", s))
    chosen: dict[Item, Item] = {}
    for label, found in fitting.items():
        near = sorted(found, key=lambda image: order.index(parsed[image].suffix))
        kept = [image for image in near if parsed[image].suffix == parsed[near[0]].suffix]
        if len(kept) == 1:
            chosen[label] = kept[0]
    chosen, raters = _one_rater(chosen, parsed)
    claims = Counter(chosen.values())
    cases = tuple(
        Annotated(_series(parsed[image], parsed[label]), (image,), label)
        for label, image in chosen.items()
        if claims[image] == 1
    )
    left_out = _left_out(listing, cases, {*labels}, fitting, claims, chosen)
    doubts = (*_doubts(suffix, order, contrasts, cases, parsed), *raters)
    title = f"BIDS, labels *_{suffix}"
    return Layout(title, cases, None, doubts, left_out) if cases or left_out else None


# -------------------------------------------------------------------- internals
def _fitting(label: Item, images: Sequence[Item], parsed: Mapping[Item, Name]) -> list[Item]:
    """The images that contradict none of the label's entities, and fit best of them."""
    wanted = parsed[label].entities
    agreeing = [
        image
        for image in images
        if all(
            wanted.get(key, None if key in _OF_A_SCAN else value) == value
            for key, value in parsed[image].entities.items()
            if key not in ("desc", "res", "space")
        )
    ]
    if "ses" in wanted:
        agreeing = [image for image in agreeing if "ses" in parsed[image].entities]

    def fit(image: Item) -> tuple[int, int, bool]:
        own = parsed[image].entities
        shared = sum(wanted.get(key) == value for key, value in own.items())
        return shared, -len(own.keys() - wanted.keys()), image.folders == label.folders

    named = [i for i in agreeing if parsed[i].suffix == wanted.get("space")]
    ranked = named or agreeing
    if not ranked:
        return []
    best: dict[str, tuple[int, int, bool]] = {}
    for image in ranked:
        suffix = parsed[image].suffix
        best[suffix] = max(best.get(suffix, fit(image)), fit(image))
    return [image for image in ranked if fit(image) == best[parsed[image].suffix]]


def _one_rater(
    chosen: Mapping[Item, Item], parsed: Mapping[Item, Name]
) -> tuple[dict[Item, Item], list[Doubt]]:
    """Of several labels of one image by different raters or pipelines, the most frequent kind.

    Labels of two sides stay, since neither of them is the whole.
    """

    def kind(label: Item) -> tuple[object, ...]:
        own = {k: v for k, v in parsed[label].entities.items() if k not in _OF_A_SCAN}
        return (label.folders[:2] if label.folders[:1] == ("derivatives",) else (), *own.items())

    claimed: dict[tuple[Item, str], list[Item]] = defaultdict(list)
    for label, image in chosen.items():
        claimed[image, parsed[label].entities.get("hemi", "")].append(label)
    frequent = Counter(map(kind, chosen))
    kept = {
        min(labels, key=lambda label: (-frequent[kind(label)], label.name, label.folders)): image
        for (image, _), labels in claimed.items()
    }
    others = [label.name for label in chosen if label not in kept]
    text = f"images have several labels, of which one is taken each; not {some(others)}"
    return kept, [Doubt("patterns", text)] if others else []


def _series(image: Name, label: Name) -> str:
    side = image.entities.get("hemi", label.entities.get("hemi", ""))
    return f"{side}_{image.suffix}".lstrip("_")


def _left_out(
    listing: Listing,
    cases: Sequence[Annotated],
    labels: set[Item],
    fitting: Mapping[Item, Sequence[Item]],
    claims: Mapping[Item, int],
    chosen: Mapping[Item, Item],
) -> tuple[tuple[Item, str], ...]:
    used = {item for case in cases for item in case.items}
    left = []
    for item in (i for i in listing.items if i not in used):
        if item not in labels:
            reason = "no label belongs to it"
        elif item in chosen:
            image = chosen[item]
            reason = f"one of {claims[image]} labels of {image.name}; join them into one file"
        elif fitting[item]:
            reason = f"may belong to {some([i.name for i in fitting[item]])}"
        else:
            reason = "a label without an image"
        left.append((item, reason))
    return tuple(left)


def _doubts(
    suffix: str,
    order: Sequence[str],
    contrasts: Mapping[str, int],
    cases: Sequence[Annotated],
    parsed: Mapping[Item, Name],
) -> tuple[Doubt, ...]:
    found = []
    used = {parsed[case.channels[0]].suffix for case in cases}
    if len(used) == 1 and len(order) > 1:
        others = [s for s in order if s not in used]
        text = f"{', '.join(others)} images fit the labels too; {order[0]} is taken"
        found.append(Doubt("patterns", f"{text} (for both as channels, mri: takes a list)"))
    pipelines = {c.label.folders[:2] for c in cases if c.label.folders[:1] == ("derivatives",)}
    if len(pipelines) > 1:
        text = f"labels come from several pipelines: {some(sorted('/'.join(p) for p in pipelines))}"
        found.append(Doubt("patterns", text))
    if suffix == "mask":
        found.append(Doubt("patterns", "there is no *_dseg file, so *_mask files are the labels"))
    return tuple(found)
