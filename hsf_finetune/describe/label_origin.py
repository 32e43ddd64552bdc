"""Who made a label, a person or a program, as far as the names of its file and folders say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hsf_finetune.describe.layouts.base_layout import ListedVolume, UnsureNote

_SEPARATOR = re.compile(r"[_\-.\s]+")
_BY_HAND = re.compile(
    r"man(ual(ly)?)?(seg\w*)?|final|(hand)?corrected|edited|experts?|rater\w*|gold|truth|gt"
    r"|ground_?truth|curated|approved|reviewed",
    re.IGNORECASE,
)
_BY_PROGRAM = re.compile(
    r"auto\w*|pred(s|ict\w*)?|original|outputs?|infer\w*|silver|pseudo\w*|lfseg|[fsx]?mriprep"
    r"|(free|fast|infant)surfer|hippunfold|ashs|(robust)?synthseg\w*|samseg|aseg\w*|totalseg\w*"
    r"|nnu?net\w*|hsf|hips\w*|hipp?odeep|vol2?brain|monai\w*|malpem\w*|cat12|fsl|spm\d*",
    re.IGNORECASE,
)
_VERSION = re.compile(r"(?:v|ver|version|rev)(\d{1,4})", re.IGNORECASE)

Rank = tuple[int, int]
"""0 by hand, 1 unknown, 2 by a program; then the version, negative."""


def choose_labels(
    images_of: Mapping[ListedVolume, Sequence[ListedVolume]],
) -> tuple[dict[ListedVolume, str], list[UnsureNote]]:
    """Labels to leave out: made by a program, or of an image that has a better one.

    Args:
        images_of: label -> its images.

    Returns:
        Such labels with the reason; what is not certain about the others.
    """
    ranks = {label: _rank(label, images[0]) for label, images in images_of.items() if images}
    best: dict[tuple[ListedVolume, ...], Rank] = {}
    for label, rank in ranks.items():
        images = tuple(images_of[label])
        best[images] = min(best.get(images, rank), rank)
    only_programs = all(kind == 2 for kind, _ in best.values())
    out = {}
    for label, rank in ranks.items():
        if rank[0] == 2 and not only_programs:
            out[label] = "made by a program, as its name says, while others are not"
        elif rank > best[tuple(images_of[label])]:
            out[label] = "its image has another label, made by hand or of a later version"
    made = ["/".join((*label.folders, label.name)) for label in ranks if label not in out]
    text = f"programs made the labels, as their names say, such as {(made or [''])[0]}"
    return out, [UnsureNote("patterns", text)] if only_programs and made else []


def _rank(label: ListedVolume, image: ListedVolume) -> Rank:
    parts = (*(folder for folder in label.folders if folder not in image.folders), label.name)
    words = [word for part in parts for word in _SEPARATOR.split(part)]
    by_hand, by_program = (any(map(e.fullmatch, words)) for e in (_BY_HAND, _BY_PROGRAM))
    versions = [int(match[1]) for word in words if (match := _VERSION.fullmatch(word))]
    return 0 if by_hand else 2 if by_program else 1, -max(versions, default=0)
