"""Whether an export segments a scan as the model does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.system.errors import DataError, OutputError


@dataclass(frozen=True)
class Proof:
    """How far the segmentations of an export and of the model agree on one scan.

    Args:
        runtime: what ran the export, with versions.
        shape: of the scan.
        segmented: voxels that either segmentation gives a class other than the background.
        differing: voxels with different classes.
    """

    runtime: str
    shape: tuple[int, ...]
    segmented: int
    differing: int

    @property
    def share(self) -> float:
        """Share of the segmented voxels that are equal."""
        return 1 - self.differing / self.segmented

    def line(self) -> str:
        """The proof in a sentence."""
        size = "x".join(map(str, self.shape))
        equal = math.floor(self.share * 1e4) / 1e2  # never 100 where voxels differ
        return (
            f"{equal:.2f}% of the segmented voxels are those of `predict`: {self.differing:,} "
            f"of {self.segmented:,} differ, on a scan of {size} voxels, with {self.runtime}"
        )


def compare_labels(expected: Segmentation, labels: npt.NDArray[Any], runtime: str) -> Proof:
    """Compares the segmentation of an export with the model's.

    Args:
        expected: the model's.
        labels: that of the export, label values, of the same shape.
        runtime: what ran the export.

    Raises:
        DataError: neither segmentation has anything but background, which proves nothing.
        OutputError: the shapes differ.
    """
    own = expected.labels
    if labels.shape != own.shape:
        raise OutputError(
            "the export gives a segmentation of another shape",
            found=labels.shape,
            expected=own.shape,
        )
    background = expected.label_values[expected.classes[0]]
    segmented = int(np.count_nonzero((own != background) | (labels != background)))
    if not segmented:
        raise DataError(
            "the model finds nothing in this scan, which proves nothing",
            file=expected.scan.ref,
            fix="give a scan that shows the structure: --scan FILE",
        )
    differing = int(np.count_nonzero(own != labels.astype(np.int64)))
    return Proof(runtime, tuple(own.shape), segmented, differing)


def require_equal(proof: Proof, least: float, scan: Volume, advice: Sequence[str]) -> None:
    """Refuses an export that segments otherwise than the model.

    Args:
        proof: what was found.
        least: share of the segmented voxels that must be equal.
        scan: its first channel.
        advice: what else to do than to give another scan.

    Raises:
        OutputError: the share of equal voxels is below the bound.
    """
    if proof.share < least:
        raise OutputError(
            "the export segments otherwise than the model, so nothing was written",
            file=scan.ref,
            found=proof.line(),
            expected=f"at least {least:.1%}",
            fix="; or ".join([*filter(None, advice), "give another scan: --scan FILE"]),
        )
