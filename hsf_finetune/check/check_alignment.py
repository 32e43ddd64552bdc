"""Does the label lie on its image as in the other cases? Shifts, flips and exchanged classes.

Each case is held to the mean picture of the others of its kind. A label that was flipped
agrees better with the others' labels once it is flipped back; one that was shifted sits
elsewhere in the volume, and the image around it agrees better with the others' once it
is shifted back. The bounds are set on 200 real crops of the hippocampus, so that none of
them is named. Flips then are found in nearly all; shifts only once they leave the range
of real anatomy and cropping, along the structure later than across it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.facts import SIDE_VOX, z_scores
from hsf_finetune.check.findings import EXCLUDE, Finding
from hsf_finetune.check.measured_cases import FEWEST, Member

Cube = npt.NDArray[np.float32]

_AXES = ("left-right", "front-back", "up-down")
_FLIP_GAIN = 0.05
"""In Dice with the mean label of the others; without a flip it is below -0.05."""
_IMAGE_FLIP_GAIN = 0.3
"""In correlation with the mean image of the others; without a flip it is below 0.05."""
_SWAP_GAIN = 0.1
_SHIFT_SPREADS = 4.5
"""A centre must be off by so many times the usual spread."""
_SHIFT_SHARE, _SHIFT_GAIN = 0.085, 0.28
"""By this share of the volume, if shifting back gains so much correlation."""
_FAR_SHARE, _FAR_GAIN = 0.145, 0.05
_CONTENT_GAIN, _CONTENT_LOSS = 0.3, 0.35
_INVERTED = -0.3
_ALIKE = 0.4
"""Cases that agree less than this with each other do not tell what is odd."""
_MOST_CLASSES = 24
_FURTHEST = 4


@dataclass(frozen=True, eq=False)
class _Standard:
    """The others of a case's kind: mean image, mean label, and how well they agree."""

    image: Cube
    labels: Cube
    usual: float


def pose_findings(group: Sequence[Member]) -> Iterator[Finding]:
    """Labels that do not lie on their images as in the other cases of a group."""
    drawn = [m for m in group if m.portrait.around is not None]
    if len(drawn) <= FEWEST:
        return
    rows = np.flatnonzero(drawn[0].case.protocol.foreground_rows)[:_MOST_CLASSES]
    # One case at a time, since in 32 bits the pictures of all would fill the memory.
    image_sum = reduce(np.add, (_around(m) for m in drawn))
    label_sum = reduce(np.add, (_one_hot(m, rows) for m in drawn))
    others = np.float32(len(drawn) - 1)
    agreement = [_correlation(_around(m), (image_sum - _around(m)) / others) for m in drawn]
    for n, member in enumerate(drawn):
        image = _around(member)
        standard = _Standard(
            (image_sum - image) / others,
            (label_sum - _one_hot(member, rows)) / others,
            float(np.median(np.delete(agreement, n))),
        )
        flip_gain, flip = _flipped_label(member, rows, image, agreement[n], standard)
        swap_gain, swap = _exchanged(member, rows, standard)
        finding = (
            (swap if swap_gain > flip_gain else flip)
            or _odd_image(member, image, agreement[n], standard)
            or _shifted(member, drawn, image, agreement[n], standard)
        )
        if finding is not None:
            yield finding


def _flipped_label(
    member: Member, rows: npt.NDArray[np.intp], image: Cube, own: float, standard: _Standard
) -> tuple[float, Finding | None]:
    label = _one_hot(member, rows)
    as_is = _overlap(label, standard.labels)
    gains = [_overlap(np.flip(label, n + 1), standard.labels) - as_is for n in range(3)]
    axis = int(np.argmax(gains))
    if gains[axis] < _FLIP_GAIN:
        return 0.0, None
    mirrored = _correlation(np.flip(image, axis), standard.image) - own > _IMAGE_FLIP_GAIN
    what = (
        f"image and label are both mirrored ({_AXES[axis]}) against the other cases"
        if mirrored and standard.usual > _ALIKE
        else f"the label is flipped ({_AXES[axis]}) against its image"
    )
    return gains[axis], Finding(
        "warned",
        "geometry/flipped",
        what,
        member.label,
        member.case.name,
        f"overlap with the other cases' mean label {as_is:.2f}, "
        f"{as_is + gains[axis]:.2f} after flipping it back",
        "the same way round as the others",
        "look at its picture; if so, flip the voxels back (nibabel: img.slicer[::-1] with the "
        f"image's affine), or {EXCLUDE}",
    )


def _exchanged(
    member: Member, rows: npt.NDArray[np.intp], standard: _Standard
) -> tuple[float, Finding | None]:
    label = _one_hot(member, rows)
    as_is = _overlap(label, standard.labels)
    best: tuple[float, tuple[int, int]] = (0.0, (0, 0))
    for a, b in combinations(range(len(rows)), 2):
        order = [*range(len(rows))]
        order[a], order[b] = b, a
        best = max(best, (_overlap(label[order], standard.labels) - as_is, (a, b)))
    if best[0] < _SWAP_GAIN:
        return 0.0, None
    names = member.case.protocol.row_names
    one, other = (names[rows[n]] for n in best[1])
    return best[0], Finding(
        "warned",
        "label/classes exchanged",
        f"{one} and {other} seem exchanged in this case",
        member.label,
        member.case.name,
        f"overlap with the other cases' mean label {as_is:.2f}, {as_is + best[0]:.2f} after "
        "exchanging them",
        "each value for the same structure in every case",
        f"look at its picture; exchange the two values in the file, or {EXCLUDE}",
    )


def _odd_image(member: Member, image: Cube, own: float, standard: _Standard) -> Finding | None:
    """An image with the opposite contrast, or mirrored under its label."""
    if standard.usual < _ALIKE:
        return None
    if own < _INVERTED:
        return Finding(
            "warned",
            "content/contrast",
            "bright and dark are the other way round than in the other cases",
            member.image,
            member.case.name,
            f"correlation {own:.2f} with the other cases' mean image",
            f"about {standard.usual:.2f}",
            f"check that it is the same kind of scan; if not, {EXCLUDE}",
        )
    if own > standard.usual - _CONTENT_LOSS:
        return None
    gains = [_best_shift(np.flip(image, n), standard.image)[0] - own for n in range(3)]
    axis = int(np.argmax(gains))
    if gains[axis] > _IMAGE_FLIP_GAIN:
        straight = _best_shift(image, standard.image)[0] - own
        if gains[axis] > straight + 0.1:
            return Finding(
                "warned",
                "geometry/flipped",
                f"the image is flipped ({_AXES[axis]}) under its label",
                member.image,
                member.case.name,
                f"correlation {own:.2f} with the other cases' mean image, "
                f"{own + gains[axis]:.2f} after flipping it back",
                f"about {standard.usual:.2f}",
                f"look at its picture; if so, flip the voxels back, or {EXCLUDE}",
            )
    return None


def _shifted(
    member: Member, drawn: Sequence[Member], image: Cube, own: float, standard: _Standard
) -> Finding | None:
    if standard.usual < _ALIKE:
        return None
    centres = np.array([m.measured.centre for m in drawn if m is not member], dtype=np.float64)
    middle = np.median(centres, axis=0)
    spread = 1.4826 * np.median(np.abs(centres - middle), axis=0)
    off = np.array(member.measured.centre) - middle
    share = float(np.max(np.where(np.abs(off) > _SHIFT_SPREADS * spread, np.abs(off), 0)))
    misfit = own < standard.usual - _CONTENT_LOSS
    if share < _SHIFT_SHARE and not misfit:
        return None
    best, shift = _best_shift(image, standard.image)
    gain = best - own
    by_place = (share > _FAR_SHARE and gain > _FAR_GAIN) or (
        share > _SHIFT_SHARE and gain > _SHIFT_GAIN
    )
    if not by_place and not (misfit and gain > _CONTENT_GAIN):
        return None
    axis = int(np.argmax(np.abs(off))) if by_place else int(np.argmax(np.abs(shift)))
    return Finding(
        "warned",
        "geometry/shifted",
        f"the label seems shifted ({_AXES[axis]}) against its image",
        member.label,
        member.case.name,
        f"its centre is {off[axis] * member.measured.shape[axis]:+.0f} voxels off that of the "
        f"other cases; correlation of the image around it {own:.2f}, {best:.2f} after shifting",
        f"about {standard.usual:.2f}",
        f"look at its picture; if so, draw or export the label again, or {EXCLUDE}",
    )


def _best_shift(image: Cube, standard: Cube) -> tuple[float, tuple[int, int, int]]:
    """Best correlation with the standard over shifts along one axis, and that shift."""
    best = (_correlation(image, standard), (0, 0, 0))
    for axis in range(3):
        for by in range(1, _FURTHEST + 1):
            for sign in (1, -1):
                here, there = [slice(None)] * 3, [slice(None)] * 3
                ends = (slice(by, None), slice(None, SIDE_VOX - by))
                here[axis], there[axis] = ends[::sign]
                shift = [0, 0, 0]
                shift[axis] = sign * by
                found = _correlation(image[tuple(here)], standard[tuple(there)])
                best = max(best, (found, (shift[0], shift[1], shift[2])))
    return best


def _around(member: Member) -> Cube:
    assert member.portrait.around is not None
    return z_scores(member.portrait.around)


def _one_hot(member: Member, rows: npt.NDArray[np.intp]) -> Cube:
    assert member.portrait.rows is not None
    picture = member.portrait.rows.view(np.uint8)
    return np.stack([picture == row for row in rows]).astype(np.float32)


def _overlap(label: Cube, standard: Cube) -> float:
    """Dice of a label with the mean of others."""
    total = float(label.sum() + standard.sum())
    return 2 * float((label * standard).sum()) / total if total else 0.0


def _correlation(a: Cube, b: Cube) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-9))
