"""What is done to the labels of a segmentation, where validation cases have shown that it helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import scipy

from hsf_finetune.system.console import format_size

ClassIndices = npt.NDArray[np.uint8]
StepKind = Literal["largest", "small", "holes"]
"""Only the largest component is kept; components below a size are removed; holes are filled."""
_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
"""Voxels that share a corner are connected."""


@dataclass(frozen=True)
class PostprocessingStep:
    """One step.

    Args:
        kind: what is done.
        classes: to the voxels of which classes, taken together.
        size_mm3: of `small`, the volume below which a component is removed.
    """

    kind: StepKind
    classes: tuple[str, ...]
    size_mm3: float = 0.0

    def apply(self, labels: ClassIndices, names: Sequence[str], voxel_mm3: float) -> ClassIndices:
        """Class indices, (X, Y, Z), after the step.

        Args:
            labels: class indices, (X, Y, Z), which are not changed.
            names: of the classes, background first.
            voxel_mm3: volume of a voxel.
        """
        channels = [names.index(name) for name in self.classes]
        boxes = scipy.ndimage.find_objects(np.isin(labels, channels).astype(np.uint8))
        if not boxes:
            return labels
        labels = labels.copy()
        part = labels[boxes[0]]
        mask = np.isin(part, channels)
        if self.kind == "holes":
            part[scipy.ndimage.binary_fill_holes(mask) & (part == 0)] = channels[0]
            return labels
        components, count = scipy.ndimage.label(mask, _NEIGHBOURS)
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        kept = sizes * voxel_mm3 >= self.size_mm3
        if self.kind == "largest":
            kept = np.arange(count) == sizes.argmax()
        part[mask & ~np.concatenate([[True], kept])[components]] = 0
        return labels

    def line(self) -> str:
        """The step in words."""
        names = " and ".join(self.classes)
        if self.kind == "holes":
            return f"holes in {names} are filled"
        if self.kind == "small":
            return f"pieces of {names} below {format_size(self.size_mm3)} mm3 are removed"
        return f"only the largest piece of {names} is kept"


@dataclass(frozen=True)
class Postprocessing:
    """The steps, one after the other.

    Args:
        steps: which validation cases have shown to help.
    """

    steps: tuple[PostprocessingStep, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def apply(self, labels: ClassIndices, names: Sequence[str], voxel_mm3: float) -> ClassIndices:
        """Class indices, (X, Y, Z), after all steps; see `PostprocessingStep.apply`."""
        for step in self.steps:
            labels = step.apply(labels, names, voxel_mm3)
        return labels

    @classmethod
    def shared(cls, several: Sequence[Postprocessing]) -> Postprocessing:
        """The steps that all of them have."""
        common = set.intersection(*({*one.steps} for one in several))
        return cls(tuple(step for step in several[0].steps if step in common))

    def lines(self) -> list[str]:
        """The steps in words."""
        return [step.line() for step in self.steps]

    def to_list(self) -> list[dict[str, Any]]:
        """The steps as plain types, as a model card holds them."""
        return [{**asdict(step), "classes": list(step.classes)} for step in self.steps]

    @classmethod
    def from_list(cls, plain: Sequence[Mapping[str, Any]]) -> Postprocessing:
        """The value that `to_list` gave.

        Raises:
            KeyError, TypeError, ValueError: `plain` is none.
        """
        for step in plain:
            if step["kind"] not in get_args(StepKind):
                raise ValueError(f"there is no post-processing '{step['kind']}'")
        return cls(
            tuple(
                PostprocessingStep(one["kind"], tuple(one["classes"]), float(one["size_mm3"]))
                for one in plain
            )
        )
