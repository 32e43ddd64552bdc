"""How often a model is right, by how sure it is: measured on voxels of labelled cases."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects
from torch import Tensor

from hsf_finetune.evaluation.score_tables import read_table
from hsf_finetune.inference.calibration import SMALLEST, temper
from hsf_finetune.system.atomic_files import write_csv

Floats = npt.NDArray[np.float64]
BINS = 15
"""Of confidence, of equal width, as in Guo et al., 2017."""
_MARGIN_VOX = 5
"""What is measured around the labels: of all else, most is background that nothing doubts."""
_MOST_VOXELS, _FEWEST_VOXELS, _MOST_NUMBERS = 20_000, 2_000, 20_000_000
_CHECKED_AT = (np.arange(BINS + 1) / BINS)[1:-1]
_HEADER = ["when", "from", "to", "voxels", "confidence", "accuracy"]


@dataclass(frozen=True)
class CalibrationCase:
    """Voxels of a validation case, drawn at random around its labels.

    Args:
        subject: the person.
        probabilities: of the model, (classes, voxels).
        allowed: the classes that each voxel's label leaves possible, (classes, voxels) bool.
    """

    subject: Hashable
    probabilities: Tensor
    allowed: Tensor

    @classmethod
    def draw(
        cls, subject: Hashable, probabilities: Tensor, rows: Tensor, allowed: Tensor, cases: int
    ) -> CalibrationCase | None:
        """Voxels of one case; None where its label leaves everything open or has no class.

        Args:
            subject: the person.
            probabilities: (classes, X, Y, Z).
            rows: label rows, (X, Y, Z).
            allowed: sets of the label rows, (rows, classes) bool.
            cases: how many there are, which share the memory.
        """
        says = (~allowed.all(dim=1))[rows.long()]
        drawn = (~allowed[:, 0])[rows.long()] & says
        boxes = find_objects(drawn.numpy().astype(np.uint8))
        if not boxes:
            return None
        box = tuple(
            slice(max(one.start - _MARGIN_VOX, 0), one.stop + _MARGIN_VOX) for one in boxes[0]
        )
        voxels = np.flatnonzero(says[box].numpy())
        count = _MOST_NUMBERS // (len(probabilities) * max(cases, 1))
        count = min(max(count, _FEWEST_VOXELS), _MOST_VOXELS)
        if len(voxels) > count:
            voxels = np.random.default_rng(0).choice(voxels, count, replace=False)
        chosen = probabilities[(slice(None), *box)].flatten(1)[:, voxels]
        return cls(subject, chosen, allowed[rows[box].flatten()[voxels].long()].T)

    def likelihood(self, temperatures: tuple[float, ...] | Tensor) -> Tensor:
        """Mean logarithm of the probability of the label, a set of classes, over its voxels."""
        calibrated = temper(self.probabilities, temperatures)
        return (calibrated * self.allowed).sum(dim=0).clamp(min=SMALLEST).log().mean()


@dataclass(frozen=True)
class Reliability:
    """How often a model is right, by how sure it is: voxels whose label is one class.

    Args:
        voxels: of each bin of confidence, (bins,).
        confidence: mean probability of the most probable class; NaN without a voxel.
        accuracy: share of the voxels for which that class is the label.
    """

    voxels: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean distance of both, over voxels (Guo et al., 2017)."""
        filled = self.voxels > 0
        distance = np.abs(self.confidence - self.accuracy)[filled]
        return float((distance * self.voxels[filled]).sum() / max(self.voxels.sum(), 1))


def measure_reliability(
    cases: Sequence[CalibrationCase], temperatures: Sequence[tuple[float, ...]]
) -> Reliability:
    """The reliability over all cases, each at temperatures of its own.

    Args:
        cases: with their voxels.
        temperatures: of each case.
    """
    voxels, confidence, right = np.zeros((3, BINS))
    for case, own in zip(cases, temperatures, strict=True):
        single = case.allowed.sum(dim=0) == 1
        highest, found = temper(case.probabilities[:, single], own).max(dim=0)
        hit = case.allowed[:, single].gather(0, found[None])[0].numpy()
        bins = np.digitize(highest.numpy(), _CHECKED_AT, right=True)
        for total, weights in ((voxels, None), (confidence, highest.numpy()), (right, hit)):
            total += np.bincount(bins, weights, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(voxels, confidence / voxels, right / voxels)


def write_reliability(path: Path, found: Mapping[str, Reliability]) -> None:
    """Writes one line per state of the model and bin of confidence as CSV; NaN is an empty cell.

    Args:
        path: the file.
        found: `before` and `after` -> the reliability then.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = (
        [when, low, low + 1 / BINS, *numbers]
        for when, one in found.items()
        for low, *numbers in zip(
            np.arange(BINS) / BINS, one.voxels, one.confidence, one.accuracy, strict=True
        )
    )
    write_csv(path, _HEADER, lines)


def read_reliability(path: Path) -> dict[str, Reliability]:
    """What `write_reliability` wrote.

    Raises:
        DataError: the file cannot be read or is no such table.
    """

    def parse(lines: list[list[str]]) -> dict[str, Reliability]:
        parts: dict[str, list[list[float]]] = {}
        for when, _, _, *cells in lines:
            parts.setdefault(when, []).append([float(cell or "nan") for cell in cells])
        return {when: Reliability(*np.array(rows).T) for when, rows in parts.items()}

    return read_table(path, _HEADER, "reliability", parse)
