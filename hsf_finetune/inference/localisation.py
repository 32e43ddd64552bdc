"""Segmenting the regions of a whole-head scan that a model of crops was trained on.

A template, on which the regions are drawn, is registered to the scan by an affine map, as HSF does
with ANTs. Here greedy does it (Yushkevich et al., 2016), by normalised mutual information, which
does not depend on the contrast.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.volumes.affines import Affine, voxel_size_mm
from hsf_finetune.data.volumes.check_volumes import check_image, check_same_grid, to_whole_numbers
from hsf_finetune.data.volumes.outside import Box
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.system.errors import ConfigError, DataError

MARGIN_MM = 8.0
"""What is cut out around a region, on each side."""
_GREEDY = (
    "-d 3 -a -dof 12 -i template scan -ia-image-centers -search 100 15 20 -seed 1 "
    "-m NMI -n 60x30x0 -o affine -threads {threads} -V 0"
)
"""Affine; it starts from the best of 100 random maps (15 degrees, 20 mm), always the same ones."""
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class LocatedSegmentation(Segmentation):
    """A segmentation of parts of a scan: what lies outside of them is background.

    Args:
        parts: region -> segmentation of its part of the scan.
        boxes: region -> that part, on the scan's grid.
    """

    parts: dict[int, Segmentation] = field(default_factory=dict, repr=False)
    boxes: dict[int, Box] = field(default_factory=dict)

    @cached_property
    def warnings(self) -> tuple[Finding, ...]:
        """What is unusual about the parts, each once."""
        found = [warning for part in self.parts.values() for warning in part.warnings]
        return tuple(dict.fromkeys(found))

    @property
    def located(self) -> Finding:
        """Which parts of the scan were segmented."""
        texts = []
        for region, box in self.boxes.items():
            size = " x ".join(str(side.stop - side.start) for side in box)
            first = ", ".join(str(side.start) for side in box)
            texts.append(f"region {region}: {size} voxels from ({first})")
        what = "parts of the scan were segmented, where the template has its regions"
        return Finding("repaired", "scan/located", what, str(self.scan.ref), found="; ".join(texts))


@dataclass(frozen=True)
class RegionFinder:
    """Finds regions that are drawn on a template in other scans.

    Args:
        template: a scan of the same part of the body.
        regions: whole numbers on the template's grid; 0 is no region.
        values: those that are regions, such as left and right.
        margin_mm: what is cut out around each.
    """

    template: Volume
    regions: npt.NDArray[np.int64]
    values: tuple[int, ...]
    margin_mm: float = MARGIN_MM

    @classmethod
    def read(
        cls,
        template: str | Path,
        regions: str | Path,
        values: Sequence[int] = (),
        margin_mm: float = MARGIN_MM,
    ) -> RegionFinder:
        """Reads a template and the regions on it.

        Args:
            template: file of a scan.
            regions: file of whole numbers on its grid: a mask, or an atlas.
            values: numbers of the regions; none are all but 0.
            margin_mm: what is cut out around each region.

        Raises:
            DataError: a file cannot be read, their grids differ, or a region is empty.
            ConfigError: the package for registration is not installed.
        """
        if find_spec("picsl_greedy") is None:
            raise ConfigError(
                "--where needs a package that is not installed",
                fix="pip install 'hsf-finetune[registration]'",
            )
        image, labels = (read_volume(VolumeRef(Path(f).expanduser())) for f in (template, regions))
        check_image(image)
        check_same_grid(image, labels)
        drawn = to_whole_numbers(labels)
        there = [int(value) for value in np.unique(drawn) if value]
        missing = sorted({*values} - {*there})
        if missing or not there:
            raise DataError(
                "the regions of the template are not in the file",
                file=regions,
                found=", ".join(map(str, there)) or "only 0",
                expected=", ".join(map(str, missing)) or "a number for each region",
            )
        return cls(image, drawn, tuple(values or there), margin_mm)

    def find(self, scan: Volume) -> dict[int, Box]:
        """Region -> the part of a scan that holds it, with the margin.

        Raises:
            DataError: a region lies outside of the scan.
        """
        check_image(scan)
        to_scan = np.linalg.inv(scan.affine) @ self._register(scan) @ self.template.affine
        margins = self.margin_mm / np.array(voxel_size_mm(scan.affine))
        boxes = {}
        for value in self.values:
            voxels = np.argwhere(self.regions == value)
            inside = voxels @ to_scan[:3, :3].T + to_scan[:3, 3]
            low = np.floor(inside.min(axis=0) - margins).astype(int).clip(min=0)
            high = np.ceil(inside.max(axis=0) + margins).astype(int) + 1
            x, y, z = map(slice, low.tolist(), np.minimum(high, scan.array.shape).tolist())
            if any(side.stop - side.start < 2 for side in (x, y, z)):
                raise DataError(
                    f"the region {value} of the template lies outside of the scan",
                    file=scan.ref,
                    fix="look at the scan: it may show another part of the body than the template",
                )
            boxes[value] = (x, y, z)
        return boxes

    def segment(self, model: ScanModel, volumes: Sequence[Volume]) -> LocatedSegmentation:
        """Segments the regions of a scan, in its own geometry.

        Args:
            model: of crops like these regions.
            volumes: the channels of the scan; the first one is registered.

        Raises:
            DataError: the scan cannot be used, or a region is not in it.
        """
        for other in volumes[1:]:
            check_same_grid(volumes[0], other)
        boxes = self.find(volumes[0])
        parts = {v: model.segment([_cut(one, box) for one in volumes]) for v, box in boxes.items()}
        first = parts[self.values[0]]
        empty = first.label_values[first.classes[0]]
        labels = np.full(volumes[0].array.shape, empty, first.labels.dtype)
        for value, part in parts.items():
            inside = labels[boxes[value]]
            inside[inside == empty] = part.labels[inside == empty]
        voxel_mm3 = float(np.prod(volumes[0].spacing_mm))
        volumes_mm3 = {
            name: float(np.count_nonzero(labels == first.label_values[name]) * voxel_mm3)
            for name in first.classes[1:]
        }

        def probabilities() -> npt.NDArray[np.float32]:
            whole = np.zeros((len(first.classes), *labels.shape), np.float32)
            whole[0] = 1
            for value, part in parts.items():
                inside = whole[(slice(None), *boxes[value])]
                surer = part.probabilities[0] < inside[0]
                inside[:, surer] = part.probabilities[:, surer]
            return whole

        channels, values = tuple(volumes), first.label_values
        return LocatedSegmentation(
            labels,
            values,
            volumes_mm3,
            channels,
            model.card,
            probabilities,
            parts=parts,
            boxes=boxes,
        )

    def _register(self, scan: Volume) -> Affine:
        """4x4, from the template's RAS+ millimetres to the scan's."""
        from picsl_greedy import Greedy3D  # an extra

        greedy = Greedy3D()
        images = {"template": _to_itk(self.template), "scan": _to_itk(scan)}
        command, said = _GREEDY.format(threads=torch.get_num_threads()), io.StringIO()
        greedy.execute(command, out=said, err=said, **images, affine=None)
        return np.asarray(greedy["affine"], dtype=np.float64)


def _to_itk(volume: Volume) -> Any:
    """A volume for ITK, whose axes are left, posterior, superior, and at right angles."""
    import SimpleITK as sitk  # noqa: N813 # imported late: most scans are not registered

    affine, spacing = _LPS @ volume.affine, voxel_size_mm(volume.affine)
    turned, _, axes = np.linalg.svd(affine[:3, :3] / spacing)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T, dtype=np.float32))
    image.SetSpacing([float(size) for size in spacing])
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((turned @ axes).ravel().tolist())
    return image


def _cut(volume: Volume, box: Box) -> Volume:
    """A part of a volume, at its place in space."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    array = np.ascontiguousarray(volume.array[box])
    return replace(volume, array=array, affine=affine, stored_shape=array.shape, header=None)
