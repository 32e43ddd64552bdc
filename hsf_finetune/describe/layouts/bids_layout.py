"""BIDS: labels are `*_dseg` files, mostly in derivatives; entities match them to images.

Brain Imaging Data Structure, version 1.10, "Imaging data type: anatomy" and
"Segmentations" of derivatives.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from hsf_finetune.data.volumes.read_volume import is_hdf5
from hsf_finetune.describe.label_origin import choose_labels
from hsf_finetune.describe.layouts.base_layout import (
    WITHOUT_IMAGE,
    FolderLayout,
    FoundCase,
    ListedVolume,
    UnsureNote,
)
from hsf_finetune.describe.list_volumes import FolderListing
from hsf_finetune.system.console import shorten_list

EXPECTED_FILES = "BIDS: sub-* files, with labels *_dseg.nii.gz beside them or below derivatives"

_NOT_BIDS = "the name is not of BIDS as those of the cases: sub-NAME_T2w with sub-NAME_dseg"
_LABEL_SUFFIXES = ("dseg", "mask")
_NO_IMAGE = ("probseg", "bold", "dwi", "sbref", "epi", "phase", "phasediff", "magnitude1")
_ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")
_SCAN_ENTITIES = ("sub", "ses", "run", "hemi")
"""Entities in which two labels of one image do not differ."""


@dataclass(frozen=True, eq=False)
class BidsVolume:
    """A volume with a name of BIDS: `sub-01_hemi-L_T2w` has entities sub, hemi and suffix T2w."""

    volume: ListedVolume
    entities: Mapping[str, str]
    suffix: str

    @property
    def pipeline(self) -> tuple[str, ...]:
        """The folders above the subject's, such as derivatives and a pipeline's."""
        return tuple(takewhile(lambda folder: not folder.startswith("sub-"), self.volume.folders))


Matches = Mapping[BidsVolume, BidsVolume]
"""Label -> its image."""


def find_cases(listing: FolderListing) -> FolderLayout | None:
    """Pairs every dseg file with the image that shares the most entities with it.

    Among images of several contrasts the one that most labels have is taken, T2w first.
    """
    volumes = [found for volume in listing.volumes if (found := parse_bids(volume)) is not None]
    suffixes = {volume.suffix for volume in volumes}
    suffix = next((suffix for suffix in _LABEL_SUFFIXES if suffix in suffixes), None)
    if suffix is None:
        return None
    by_subject: dict[str, list[BidsVolume]] = defaultdict(list)
    for image in volumes:
        if image.suffix not in (*_LABEL_SUFFIXES, *_NO_IMAGE):
            by_subject[image.entities["sub"]].append(image)
    labels = [volume for volume in volumes if volume.suffix == suffix]
    images_of = {
        label: match_entities(label, by_subject[label.entities["sub"]]) for label in labels
    }
    counts = Counter(s for images in images_of.values() for s in {i.suffix for i in images})
    contrasts = sorted(counts, key=lambda s: (-counts[s], s != "T2w", s))
    matches: dict[BidsVolume, BidsVolume] = {}
    for label, images in images_of.items():
        best = min((contrasts.index(image.suffix) for image in images), default=0)
        kept = [image for image in images if image.suffix == contrasts[best]]
        if len(kept) == 1:
            matches[label] = kept[0]
    worse, notes = choose_labels({n.volume: [image.volume] for n, image in matches.items()})
    matches, more = _choose_rater({n: i for n, i in matches.items() if n.volume not in worse})
    label_count = Counter(matches.values())
    single = {label: image for label, image in matches.items() if label_count[image] == 1}
    cases = tuple(
        FoundCase(_series(image, label), (image.volume,), label.volume)
        for label, image in single.items()
    )
    reasons = {label.volume: _why_unused(label, images_of[label], matches) for label in labels}
    reasons |= worse
    reasons |= dict.fromkeys((v for v in listing.volumes if parse_bids(v) is None), _NOT_BIDS)
    used = {volume for case in cases for volume in case.volumes}
    unused = [volume for volume in listing.volumes if volume not in used]
    left_out = tuple((volume, reasons.get(volume, "no label belongs to it")) for volume in unused)
    if not cases and not left_out:
        return None
    all_notes = (*_find_notes(suffix, contrasts, single), *notes, *more)
    return FolderLayout(f"BIDS, labels *_{suffix}", cases, None, all_notes, left_out)


def parse_bids(volume: ListedVolume) -> BidsVolume | None:
    """Entities and suffix of a volume; None if its name is not of BIDS."""
    *parts, suffix = volume.name.split("_")
    pairs = [_ENTITY.fullmatch(part) for part in parts]
    if is_hdf5(volume.ref.path) or not all(pairs) or not suffix.isalnum():
        return None
    entities = {match[1]: match[2] for match in pairs if match}
    return BidsVolume(volume, entities, suffix) if "sub" in entities else None


def match_entities(label: BidsVolume, images: Sequence[BidsVolume]) -> list[BidsVolume]:
    """The images that contradict none of the label's entities; of each contrast the best ones."""
    wanted = label.entities
    agreeing = [
        image
        for image in images
        if all(
            wanted.get(key, None if key in _SCAN_ENTITIES else value) == value
            for key, value in image.entities.items()
            if key not in ("desc", "res", "space")
        )
        and ("ses" in image.entities or "ses" not in wanted)
    ]
    in_space = [image for image in agreeing if image.suffix == wanted.get("space")]

    def agreement(image: BidsVolume) -> tuple[int, int, bool, bool]:
        shared = sum(wanted.get(key) == value for key, value in image.entities.items())
        beside = image.volume.folders == label.volume.folders
        return shared, -len(image.entities), beside, not image.pipeline

    best: dict[str, tuple[int, int, bool, bool]] = {}
    for image in in_space or agreeing:
        best[image.suffix] = max(best.get(image.suffix, agreement(image)), agreement(image))
    return [i for i in in_space or agreeing if agreement(i) == best[i.suffix]]


def _choose_rater(matches: Matches) -> tuple[dict[BidsVolume, BidsVolume], list[UnsureNote]]:
    """Of several labels of one image by different raters or pipelines, the most frequent kind.

    Labels of two sides stay, since neither of them is the whole.
    """

    def kind(label: BidsVolume) -> tuple[object, ...]:
        entities = {k: v for k, v in label.entities.items() if k not in _SCAN_ENTITIES}
        return (label.pipeline, *entities.items())

    labels_of: dict[tuple[BidsVolume, str], list[BidsVolume]] = defaultdict(list)
    for label, image in matches.items():
        labels_of[image, label.entities.get("hemi", "")].append(label)
    counts = Counter(map(kind, matches))

    def rank(label: BidsVolume) -> tuple[int, str, tuple[str, ...]]:
        return -counts[kind(label)], label.volume.name, label.volume.folders

    kept = {min(labels, key=rank): image for (image, _), labels in labels_of.items()}
    others = [label.volume.name for label in matches if label not in kept]
    text = f"images have several labels, of which one is taken each; not {shorten_list(others)}"
    return kept, [UnsureNote("patterns", text)] if others else []


def _series(image: BidsVolume, label: BidsVolume) -> str:
    side = {**label.entities, **image.entities}.get("hemi", "")
    return f"{side}_{image.suffix}".lstrip("_")


def _why_unused(label: BidsVolume, images: Sequence[BidsVolume], matches: Matches) -> str:
    """Why a label gives no case, if it gives none."""
    if label in matches:
        image = matches[label]
        count = sum(other is image for other in matches.values())
        return f"one of {count} labels of {image.volume.name}; join them into one file"
    if images:
        return f"may belong to {shorten_list([image.volume.name for image in images])}"
    return WITHOUT_IMAGE


def _find_notes(suffix: str, contrasts: Sequence[str], matches: Matches) -> list[UnsureNote]:
    texts = []
    used = {image.suffix for image in matches.values()}
    if len(used) == 1 and len(contrasts) > 1:
        others = ", ".join(contrast for contrast in contrasts if contrast not in used)
        texts.append(
            f"{others} images fit the labels too; {contrasts[0]} is taken (for both as channels, "
            "mri: takes a list)"
        )
    pipelines = sorted({"/".join(label.pipeline) for label in matches if label.pipeline})
    if len(pipelines) > 1:
        texts.append(f"labels come from several pipelines: {shorten_list(pipelines)}")
    if suffix == "mask":
        texts.append("there is no *_dseg file, so *_mask files are the labels")
    return [UnsureNote("patterns", text) for text in texts]
