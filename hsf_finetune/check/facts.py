"""What is kept of a case once its volumes are let go: findings, measures and small pictures."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import Finding

Small = npt.NDArray[np.int8]
Triple = tuple[float, float, float]

SIDE_VOX = 16
"""Length of a portrait's edges, in voxels of its own."""
STEPS_PER_STD = 25.0
"""Steps of a portrait's 8 bits in a standard deviation of the image."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """Small pictures of a case, cubes of `SIDE_VOX` voxels along RAS+ axes.

    Args:
        view: the whole image, z-normalised, in steps of 1/25 standard deviation.
        around: the image around the label's bounding box, likewise; None without a label.
        rows: the label rows there; None without a label.
    """

    view: Small
    around: Small | None = None
    rows: Small | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured of a case, along RAS+ axes.

    Args:
        shape: of the volume, in voxels.
        spacing_mm: voxel size.
        orientation: the file's own axes, such as `LPS`.
        tilt_deg: angle between the axes and the scanner's.
        image_hash: of the voxels of all channels.
        label_hash: of the label's voxels; empty where it is empty.
        row_voxels: voxels of each label row.
        row_x_mm: mean position of each label row along left to right, in mm.
        row_mean: mean of each label row in the z-normalised image.
        centre: of the labelled voxels, as a share of the volume along each axis.
        centre_mm: the same in scanner coordinates.
        contrast: label less its surroundings, in standard deviations of those.
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    orientation: str
    tilt_deg: float
    image_hash: str
    label_hash: str
    row_voxels: tuple[int, ...]
    row_x_mm: tuple[float | None, ...]
    row_mean: tuple[float | None, ...]
    centre: Triple | None
    centre_mm: Triple | None
    contrast: float | None


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything the check remembers of one case.

    Args:
        findings: what was found in its own files.
        measured: measures; None where its files cannot be read.
        portrait: small pictures; None where its files cannot be read.
    """

    findings: tuple[Finding, ...]
    measured: Measured | None = None
    portrait: Portrait | None = None

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain types, for the cache."""
        pictures = vars(self.portrait) if self.portrait else {}
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "measured": asdict(self.measured) if self.measured else None,
            "portrait": {k: _packed(v) for k, v in pictures.items() if v is not None} or None,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Facts:
        """The facts that `plain` describes.

        Raises:
            KeyError, TypeError, ValueError: it describes none.
        """
        measured = plain["measured"]
        pictures = {k: _unpacked(v) for k, v in (plain["portrait"] or {}).items()}
        return cls(
            tuple(Finding(**finding) for finding in plain["findings"]),
            Measured(**{k: _tuples(v) for k, v in measured.items()}) if measured else None,
            Portrait(**pictures) if pictures else None,
        )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def z_scores(picture: Small) -> npt.NDArray[np.float32]:
    """A picture of an image as it was, z-normalised."""
    return picture.astype(np.float32) / np.float32(STEPS_PER_STD)


def _packed(picture: Small) -> str:
    return base64.b64encode(zlib.compress(picture.tobytes(), 1)).decode()


def _unpacked(text: str) -> Small:
    flat = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.int8)
    return flat.reshape(SIDE_VOX, SIDE_VOX, SIDE_VOX)
