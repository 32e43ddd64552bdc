"""Which images a label may belong to, by the names that the layouts know, whatever the folders."""

from __future__ import annotations

from collections.abc import Sequence

from hsf_finetune.data.discovery.channel_numbers import without_channel
from hsf_finetune.describe.layouts.base_layout import ListedVolume
from hsf_finetune.describe.layouts.bids_layout import match_entities, parse_bids
from hsf_finetune.describe.layouts.by_name_layout import telling_words


def match_names(label: ListedVolume, images: Sequence[ListedVolume]) -> list[ListedVolume]:
    """The images that a label may belong to by the first rule that finds any.

    The rules are: the same name; nnU-Net's `case_0000` for `case`; the entities of BIDS; the
    same words but for those of kinds and contrasts (`p1_T2_image`, `p1_label`); the same folder
    below both, where one name has no word that the other lacks (`p1/T2`, `p1/seg_final`).
    """
    bids = parse_bids(label)
    named = filter(None, map(parse_bids, images)) if bids else ()
    words = telling_words(label.name)
    rules = (
        (image for image in images if image.name == label.name),
        (image for image in images if without_channel(image.name) == label.name),
        (match.volume for match in match_entities(bids, [*named])) if bids else (),
        (image for image in images if words and telling_words(image.name) == words),
        (image for image in images if label.folders and _is_beside(image, label)),
    )
    return next((found for rule in rules if (found := [*rule])), [])


def _is_beside(image: ListedVolume, label: ListedVolume) -> bool:
    words, others = {*telling_words(image.name)}, {*telling_words(label.name)}
    return image.folders == label.folders and (words <= others or others <= words)
