"""What is kept of a case after its volumes are read: findings, measures and thumbnails."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import Finding

Thumbnail = npt.NDArray[np.int8]
Triple = tuple[float, float, float]

EDGE_VOX = 16
"""Edge length of a thumbnail, in its own voxels."""
STEPS_PER_STD = 25.0
"""Steps of a thumbnail's 8 bits in one standard deviation of the image."""


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Cubes of (`EDGE_VOX`, `EDGE_VOX`, `EDGE_VOX`) voxels along RAS+ axes.

    Args:
        image: the whole image, z-normalised, in steps of 1/25 standard deviation.
        crop: the image around the label's bounding box, likewise; None without a label.
        crop_rows: the label rows in that crop; None without a label.
    """

    image: Thumbnail
    crop: Thumbnail | None = None
    crop_rows: Thumbnail | None = None


@dataclass(frozen=True)
class Measures:
    """What was measured of a case, along RAS+ axes.

    Args:
        shape: of the volume, in voxels.
        spacing_mm: voxel size.
        orientation: the file's own axes, such as `LPS`.
        tilt_deg: angle between the grid's axes and the scanner's.
        image_hash: of the voxels of all channels.
        label_hash: of the label's voxels; empty where the label is empty.
        row_voxels: voxels of each label row.
        row_x_mm: mean position of each label row from left to right, in mm.
        row_mean: mean of each label row in the z-normalised image.
        centre: of the labelled voxels, as a share of the volume along each axis.
        centre_mm: the same in scanner coordinates.
        contrast: mean of the label minus that of its surroundings, in standard deviations of
            the surroundings.
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
class CaseFacts:
    """Everything that the check keeps of one case.

    Args:
        findings: problems of its own files.
        measures: None where a file was refused.
        thumbnails: None where a file was refused.
    """

    findings: tuple[Finding, ...]
    measures: Measures | None = None
    thumbnails: Thumbnails | None = None

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain types, for the cache."""
        cubes = vars(self.thumbnails) if self.thumbnails else {}
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "measures": asdict(self.measures) if self.measures else None,
            "thumbnails": {k: _to_text(v) for k, v in cubes.items() if v is not None},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> CaseFacts:
        """The facts that `plain` describes.

        Raises:
            KeyError, TypeError, ValueError: it describes none.
        """
        measures = {
            k: tuple(v) if isinstance(v, list) else v for k, v in (plain["measures"] or {}).items()
        }
        cubes = {name: _from_text(text) for name, text in plain["thumbnails"].items()}
        return cls(
            tuple(Finding(**finding) for finding in plain["findings"]),
            Measures(**measures) if measures else None,
            Thumbnails(**cubes) if cubes else None,
        )


def to_z_scores(cube: Thumbnail) -> npt.NDArray[np.float32]:
    """A thumbnail of an image in standard deviations of the image."""
    return cube.astype(np.float32) / np.float32(STEPS_PER_STD)


def _to_text(cube: Thumbnail) -> str:
    return base64.b64encode(zlib.compress(cube.tobytes(), 1)).decode()


def _from_text(text: str) -> Thumbnail:
    flat = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.int8)
    return flat.reshape(EDGE_VOX, EDGE_VOX, EDGE_VOX)
