"""Which post-processing helps, by validation cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hsf_finetune.inference.postprocessing import (
    ClassIndices,
    Postprocessing,
    PostprocessingStep,
)

Bools = npt.NDArray[np.bool_]
_SMALLEST_SHARE = 0.5
"""A piece that is removed is smaller than this share of the smallest one in the labels."""
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class LabelledCase:
    """A segmentation and its label, around both.

    Args:
        found: class indices, (X, Y, Z).
        rows: label rows, (X, Y, Z).
        allowed: sets of the label rows, (rows, classes) bool.
        voxel_mm3: volume of a voxel.
    """

    found: ClassIndices
    rows: npt.NDArray[np.uint8]
    allowed: Bools
    voxel_mm3: float

    @classmethod
    def cut(
        cls, found: ClassIndices, rows: npt.NDArray[np.uint8], allowed: Bools, voxel_mm3: float
    ) -> LabelledCase:
        """The part of a case that holds all of its segmentation and of its label."""
        anything = (found > 0) | ~allowed[:, 0][rows]
        boxes = ndimage.find_objects(anything.astype(np.uint8))
        box = boxes[0] if boxes else (slice(0, 1),) * 3
        return cls(found[box].copy(), rows[box].copy(), allowed, voxel_mm3)

    def dice(self) -> npt.NDArray[np.float64]:
        """Dice of each set of foreground classes that the label draws, as `set_masks` counts."""
        values = []
        for own in self.allowed[~self.allowed[:, 0] & self.allowed.any(axis=1)]:
            inside = self.allowed.any(axis=1) & ~(self.allowed & ~own).any(axis=1)
            counts = inside | ~(self.allowed & own).any(axis=1)
            true, found = inside[self.rows], own[self.found] & counts[self.rows]
            total = int(true.sum()) + int(found.sum())
            values.append(2 * int((true & found).sum()) / total if total else np.nan)
        return np.array(values)

    def pieces_mm3(self, channel: int) -> list[float]:
        """The volume of each piece of a class in the label."""
        alone = self.allowed[:, channel] & (self.allowed.sum(axis=1) == 1)
        pieces, count = ndimage.label(alone[self.rows], ndimage.generate_binary_structure(3, 3))
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        return [float(size * self.voxel_mm3) for size in sizes]


def fit_postprocessing(cases: Sequence[LabelledCase], names: Sequence[str]) -> Postprocessing:
    """The steps that gain Dice on some case and lose it on none, one after the other.

    As in nnU-Net (Isensee et al., Nature Methods 18:203-211, 2021), the largest piece of the whole
    foreground is tried before those of single classes; then small pieces, and holes.

    Args:
        cases: of the validation.
        names: of the classes, background first.
    """
    steps: list[PostprocessingStep] = []
    for step in _candidates(cases, names):
        changed = [
            replace(case, found=step.apply(case.found, names, case.voxel_mm3)) for case in cases
        ]
        differ = [
            (one.dice(), other.dice())
            for one, other in zip(changed, cases, strict=True)
            if one.found is not other.found and not np.array_equal(one.found, other.found)
        ]
        # What vanishes from both has no Dice any more: the case no longer has it falsely.
        gains = [np.nan_to_num(a, nan=1.0) - np.nan_to_num(b, nan=1.0) for a, b in differ]
        means = [float(gain.mean()) for gain in gains if len(gain)]
        lowest = min((float(gain.min()) for gain in gains if len(gain)), default=0.0)
        if lowest >= -_TOLERANCE and sum(means) > _TOLERANCE:
            steps.append(step)
            cases = changed
    return Postprocessing(tuple(steps))


def _candidates(
    cases: Sequence[LabelledCase], names: Sequence[str]
) -> Iterator[PostprocessingStep]:
    """Every step that is tried, in its order."""
    foreground = tuple(names[1:])
    if len(foreground) > 1:
        yield PostprocessingStep("largest", foreground)
    for name in foreground:
        yield PostprocessingStep("largest", (name,))
    for channel, name in enumerate(foreground, start=1):
        sizes = [size for case in cases for size in case.pieces_mm3(channel)]
        if sizes and min(sizes) * _SMALLEST_SHARE > 0:
            yield PostprocessingStep("small", (name,), round(min(sizes) * _SMALLEST_SHARE, 4))
        yield PostprocessingStep("holes", (name,))
