"""What is kept of a case after its volumes are read, also for the next check of the same files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.read_volume import file_stamp
from hsf_finetune.system.atomic_files import cache_folder

Thumbnail = npt.NDArray[np.int8]
Triple = tuple[float, float, float]

EDGE_VOX = 16
"""Edge length of a thumbnail, in its own voxels."""
STEPS_PER_STD = 25.0
"""Steps of a thumbnail's 8 bits in one standard deviation of the image."""
_FORMAT = 6
"""Raised whenever the check of a case changes, so that outdated facts are not read."""


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


@dataclass(frozen=True, slots=True)
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
        typical: the quantities of `typical_scans`, by name.
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
    typical: Mapping[str, float]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Measures:
        """The measures that `plain` describes.

        Raises:
            AttributeError, KeyError, TypeError: it describes none.
        """
        lists = {name: tuple(value) for name, value in plain.items() if isinstance(value, list)}
        return cls(**{**plain, **lists})

    def to_dict(self) -> dict[str, Any]:
        """The measures as plain types."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """Everything that the check keeps of one case; only findings where a file was refused."""

    findings: tuple[Finding, ...]
    measures: Measures | None = None
    thumbnails: Thumbnails | None = None

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain types, without the thumbnails."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "measures": self.measures.to_dict() if self.measures else None,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> CaseFacts:
        """The facts that `plain` describes.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it describes none.
        """
        measures = plain["measures"]
        findings = tuple(Finding(**finding) for finding in plain["findings"])
        return cls(findings, Measures.from_dict(measures) if measures else None)


def to_z_scores(cube: Thumbnail) -> npt.NDArray[np.float32]:
    """A thumbnail of an image in standard deviations of the image."""
    return cube.astype(np.float32) / np.float32(STEPS_PER_STD)


def fingerprint(case: Case) -> str | None:
    """Changes with the files (path, size, times of change) and the meaning of the labels.

    None where a file is missing: nothing should be kept of such a case.
    """
    try:
        stamps = [(ref, file_stamp(ref.path)) for ref in case.volumes]
    except OSError:
        return None
    files = [[str(ref), *stamp, ref.spacing_mm, ref.affine] for ref, stamp in stamps]
    protocol = [[value, sorted(names)] for value, names in case.protocol.sets]
    text = json.dumps([_FORMAT, case.name, files, protocol, case.protocol.row_names])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def facts_file(cases: Sequence[Case]) -> Path:
    """The file of the cache for the cases of these datasets and folders, whatever their number."""
    folders = sorted({f"{case.dataset}:{case.images[0].path.parent.parent}" for case in cases})
    first = folders[0] if folders else ""
    name = hashlib.sha256(f"{first}:{len(folders) > 1}".encode()).hexdigest()[:16]
    return cache_folder() / "check" / f"{name}.jsonl"
