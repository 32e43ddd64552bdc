"""Does the label lie on its image as in the other cases? Shifts, flips and exchanged classes.

Each case is compared with the mean thumbnail of the other cases of its group. A label that
was flipped agrees better with the others' labels after flipping it back; one that was shifted
sits elsewhere in the volume, and the image around it agrees better with the others' after
shifting it back. The limits are set on 200 real crops of the hippocampus, so that none of
them is reported. Nearly all flips are found; shifts only once they exceed the range of real
anatomy and cropping, along the structure later than across it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.case_facts import EDGE_VOX, to_z_scores
from hsf_finetune.check.findings import EXCLUDE, Finding
from hsf_finetune.check.measured_cases import MIN_CASES, MeasuredCase, find_lacking, read_numbers
from hsf_finetune.check.usual_values import medians_of_others, spreads_of_others

Cube = npt.NDArray[np.float32]

_AXES = ("left-right", "front-back", "up-down")
_FLIP_GAIN = 0.05
"""In Dice with the others' mean label; without a flip it is below -0.05."""
_IMAGE_FLIP_GAIN = 0.3
"""In correlation with the others' mean image; without a flip it is below 0.05."""
_EXCHANGE_GAIN = 0.1
_SHIFT_SPREADS = 4.5
"""A shifted centre is off by at least so many times the usual spread."""
_SHIFT_SHARE, _SHIFT_GAIN = 0.085, 0.28
"""It is off by this share of the volume, and shifting back gains so much correlation."""
_FAR_SHARE, _FAR_GAIN = 0.145, 0.05
_CONTENT_GAIN, _CONTENT_LOSS = 0.3, 0.35
_INVERTED = -0.3
_SIMILAR = 0.4
"""Cases that agree less than this with each other do not say what is unusual."""
_MAX_CLASSES = 24
_MAX_SHIFT_VOX = 4


@dataclass(frozen=True, eq=False)
class _Posed:
    """A case beside the means of the other cases of its group, in crops around the label.

    Images are (N, N, N), labels (rows, N, N, N). `agreement` is the correlation of the image with
    the mean image, `usual` the median of the others' agreement.
    """

    case: MeasuredCase
    image: Cube
    labels: Cube
    mean_image: Cube
    mean_labels: Cube
    agreement: float
    usual: float


def check_alignment(group: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Labels of a group that do not lie on their images as in the other cases.

    Those that lack a class which nearly all have are reported for that alone.
    """
    # Without a class that the others have, what is left lies elsewhere anyway.
    partial = {case.name for _, lacking in find_lacking(group) for case in lacking}
    complete = [case for case in group if case.name not in partial]
    cases = [case for case in complete if case.facts.read_measures().centre is not None]
    if len(cases) <= MIN_CASES:
        return
    rows = np.flatnonzero(cases[0].protocol.foreground_rows)[:_MAX_CLASSES]
    # One case at a time: the thumbnails of all would fill the memory.
    image_sum, label_sum = _read_crop(cases[0], rows)
    for case in cases[1:]:
        image, labels = _read_crop(case, rows)
        image_sum += image
        label_sum += labels
    others = np.float32(len(cases) - 1)
    crops = (_read_crop(case, rows)[0] for case in cases)
    agreement = [_correlation(image, (image_sum - image) / others) for image in crops]
    usual = medians_of_others(np.array(agreement))
    (centres,) = read_numbers(cases, "centre")
    medians = np.stack([medians_of_others(axis) for axis in centres.T], axis=1)
    spreads = 1.4826 * np.stack(
        [spreads_of_others(*both) for both in zip(centres.T, medians.T, strict=True)], axis=1
    )
    for n, case in enumerate(cases):
        image, labels = _read_crop(case, rows)
        means = (image_sum - image) / others, (label_sum - labels) / others
        posed = _Posed(case, image, labels, *means, agreement[n], float(usual[n]))
        flip_gain, flip = _find_flipped_label(posed)
        exchange_gain, exchange = _find_exchanged_classes(posed, rows)
        finding = (
            (exchange if exchange_gain > flip_gain else flip)
            or _find_odd_image(posed)
            or _find_shift(posed, centres[n] - medians[n], spreads[n])
        )
        if finding is not None:
            yield finding


def _find_flipped_label(posed: _Posed) -> tuple[float, Finding | None]:
    before = _overlap(posed.labels, posed.mean_labels)
    flipped = [_overlap(np.flip(posed.labels, n + 1), posed.mean_labels) for n in range(3)]
    axis = int(np.argmax(flipped))
    gain = flipped[axis] - before
    if gain < _FLIP_GAIN:
        return 0.0, None
    image_gain = _correlation(np.flip(posed.image, axis), posed.mean_image) - posed.agreement
    what = (
        f"image and label are both mirrored ({_AXES[axis]}) against the other cases"
        if image_gain > _IMAGE_FLIP_GAIN and posed.usual > _SIMILAR
        else f"the label is flipped ({_AXES[axis]}) against its image"
    )
    return gain, posed.case.warn_label(
        "geometry/flipped",
        what,
        found=f"overlap with the other cases' mean label {before:.2f}, "
        f"{before + gain:.2f} after flipping it back",
        expected="the same way round as the others",
        fix="look at its picture; if so, flip the voxels back (nibabel: img.slicer[::-1] with the "
        f"image's affine), or {EXCLUDE}",
    )


def _find_exchanged_classes(
    posed: _Posed, rows: npt.NDArray[np.intp]
) -> tuple[float, Finding | None]:
    before = _overlap(posed.labels, posed.mean_labels)
    best: tuple[float, tuple[int, int]] = (0.0, (0, 0))
    for a, b in combinations(range(len(rows)), 2):
        order = [*range(len(rows))]
        order[a], order[b] = b, a
        best = max(best, (_overlap(posed.labels[order], posed.mean_labels) - before, (a, b)))
    gain, pair = best
    if gain < _EXCHANGE_GAIN:
        return 0.0, None
    one, other = (posed.case.protocol.row_names[rows[n]] for n in pair)
    return gain, posed.case.warn_label(
        "label/classes exchanged",
        f"{one} and {other} seem exchanged in this case",
        found=f"overlap with the other cases' mean label {before:.2f}, {before + gain:.2f} after "
        "exchanging them",
        expected="each value for the same structure in every case",
        fix=f"look at its picture; exchange the two values in the file, or {EXCLUDE}",
    )


def _find_odd_image(posed: _Posed) -> Finding | None:
    """An image with the opposite contrast, or mirrored under its label."""
    if posed.usual < _SIMILAR:
        return None
    if posed.agreement < _INVERTED:
        return posed.case.warn_image(
            "content/contrast",
            "bright and dark are the other way round than in the other cases",
            found=f"correlation {posed.agreement:.2f} with the other cases' mean image",
            expected=f"about {posed.usual:.2f}",
            fix=f"check that it is the same kind of scan; if not, {EXCLUDE}",
        )
    if posed.agreement > posed.usual - _CONTENT_LOSS:
        return None
    flipped = [_best_shift(np.flip(posed.image, n), posed.mean_image)[0] for n in range(3)]
    axis = int(np.argmax(flipped))
    gain = flipped[axis] - posed.agreement
    shift_gain = _best_shift(posed.image, posed.mean_image)[0] - posed.agreement
    if gain <= max(_IMAGE_FLIP_GAIN, shift_gain + 0.1):
        return None
    return posed.case.warn_image(
        "geometry/flipped",
        f"the image is flipped ({_AXES[axis]}) under its label",
        found=f"correlation {posed.agreement:.2f} with the other cases' mean image, "
        f"{posed.agreement + gain:.2f} after flipping it back",
        expected=f"about {posed.usual:.2f}",
        fix=f"look at its picture; if so, flip the voxels back, or {EXCLUDE}",
    )


def _find_shift(
    posed: _Posed, off: npt.NDArray[np.float64], spread: npt.NDArray[np.float64]
) -> Finding | None:
    """A label that lies elsewhere than the others'.

    Args:
        posed: the case.
        off: of its centre from the median of the others, as a share of the volume, (3,).
        spread: of the others about it, (3,).
    """
    if posed.usual < _SIMILAR:
        return None
    case = posed.case
    share = float(np.max(np.where(np.abs(off) > _SHIFT_SPREADS * spread, np.abs(off), 0)))
    unlike = posed.agreement < posed.usual - _CONTENT_LOSS
    if share < _SHIFT_SHARE and not unlike:
        return None
    best, shift = _best_shift(posed.image, posed.mean_image)
    gain = best - posed.agreement
    limits = ((_FAR_SHARE, _FAR_GAIN), (_SHIFT_SHARE, _SHIFT_GAIN))
    by_place = any(share > far and gain > enough for far, enough in limits)
    if not by_place and not (unlike and gain > _CONTENT_GAIN):
        return None
    axis = int(np.argmax(np.abs(off if by_place else shift)))
    return case.warn_label(
        "geometry/shifted",
        f"the label seems shifted ({_AXES[axis]}) against its image",
        found=f"its centre is {off[axis] * case.facts.read_measures().shape[axis]:+.0f} voxels off that of the "
        f"other cases; correlation of the image around it {posed.agreement:.2f}, {best:.2f} after "
        "shifting",
        expected=f"about {posed.usual:.2f}",
        fix=f"look at its picture; if so, draw or export the label again, or {EXCLUDE}",
    )


def _best_shift(image: Cube, mean: Cube) -> tuple[float, tuple[int, ...]]:
    """Best correlation with the mean image over shifts along one axis, and that shift."""
    best: tuple[float, tuple[int, ...]] = (_correlation(image, mean), (0, 0, 0))
    for axis, by, sign in product(range(3), range(1, _MAX_SHIFT_VOX + 1), (1, -1)):
        first, second = [slice(by, None), slice(None, EDGE_VOX - by)][::sign]
        moved, fixed = np.moveaxis(image, axis, 0)[first], np.moveaxis(mean, axis, 0)[second]
        shift = tuple(sign * by * (n == axis) for n in range(3))
        best = max(best, (_correlation(moved, fixed), shift))
    return best


def _read_crop(case: MeasuredCase, rows: npt.NDArray[np.intp]) -> tuple[Cube, Cube]:
    """The image around the label, (N, N, N), and these rows of the label, (rows, N, N, N)."""
    thumbnails = case.facts.read_thumbnails()
    assert thumbnails.crop is not None
    assert thumbnails.crop_rows is not None
    label = thumbnails.crop_rows.view(np.uint8)
    return to_z_scores(thumbnails.crop), np.stack([label == row for row in rows]).astype(np.float32)


def _overlap(labels: Cube, mean: Cube) -> float:
    """Dice of a case's label rows with the mean of others."""
    total = float(labels.sum() + mean.sum())
    return 2 * float((labels * mean).sum()) / total if total else 0.0


def _correlation(a: Cube, b: Cube) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-9))
