"""The clean cohorts that the zoo damages: real crops, and phantoms where sides are needed."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hsf_finetune.data.phantom.phantom_image import make_phantom

MSD = Path(
    os.environ.get("HSF_FINETUNE_MSD")
    or Path(__file__).parents[2].parent / "shared" / "data" / "msd_hippocampus"
)
WHY_SKIPPED = (
    f"no MSD hippocampus volumes in {MSD}: set HSF_FINETUNE_MSD to Task04_Hippocampus "
    "of medicaldecathlon.com"
)
NUMBERS = ("065", "067", "068", "070", "074", "075", "077", "083")
VICTIM = 2

Array = np.ndarray[Any, Any]
Edit = Callable[[Array], Array]

MSD_OVERRIDES = ("datasets=msd_hippocampus", "augmentation.flip=false")
SIDED_OVERRIDES = (
    "datasets=msd_hippocampus",
    "datasets.datasets.msd_hippocampus.labels_names={1: left_hippocampus, 2: right_hippocampus}",
)


@dataclass(frozen=True)
class Cohort:
    """A cohort on disk, in the layout of the Medical Segmentation Decathlon."""

    root: Path

    def image(self, number: int = VICTIM) -> Path:
        return sorted((self.root / "imagesTr").glob("*.nii.gz"))[number]

    def label(self, number: int = VICTIM) -> Path:
        return self.root / "labelsTr" / self.image(number).name

    def pair(self, number: int = VICTIM) -> tuple[Path, Path]:
        return self.image(number), self.label(number)

    def __len__(self) -> int:
        return len(list((self.root / "imagesTr").glob("*.nii.gz")))


def msd(root: Path) -> Cohort:
    """Copies of eight real crops."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
        for number in NUMBERS:
            name = f"hippocampus_{number}.nii.gz"
            shutil.copyfile(MSD / folder / name, root / folder / name)
    return Cohort(root)


def both_sides(root: Path, subjects: int = 6) -> Cohort:
    """Phantoms of both hippocampi in one volume, the left one drawn as 1, the right one as 2."""
    for number in range(subjects):
        halves = [
            make_phantom(1, number, side, "T2w", (24, 36, 24), 1.4) for side in ("left", "right")
        ]
        image = np.concatenate([half.image for half in halves])
        label = np.concatenate([(half.subfields > 0) * n for n, half in enumerate(halves, 1)])
        for folder, array in (("imagesTr", image), ("labelsTr", label.astype(np.uint8))):
            write(root / folder / f"hippocampus_{number:03d}.nii.gz", array, halves[0].affine)
    return Cohort(root)


def named_sides(root: Path, subjects: int = 6) -> Cohort:
    """Phantoms of one hippocampus each, whose files are named after its side."""
    for number in range(subjects):
        for side in ("left", "right"):
            phantom = make_phantom(1, number, side, "T2w", (24, 36, 24), 1.4)
            label = np.where(phantom.subfields > 3, 2, phantom.subfields > 0).astype(np.uint8)
            name = f"hippocampus_{number:03d}_{side}.nii.gz"
            write(root / "imagesTr" / name, phantom.image, phantom.affine)
            write(root / "labelsTr" / name, label, phantom.affine)
    return Cohort(root)


def write(path: Path, array: Array, affine: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)


def voxels(path: Path) -> Array:
    return np.asanyarray(nib.load(path).dataobj)


def affine_of(path: Path) -> Array:
    return np.array(nib.load(path).affine)


def edit(path: Path, change: Edit) -> None:
    """Changes the voxels, and nothing of where they lie."""
    affine = affine_of(path)
    write(path, change(np.array(voxels(path))), affine)


def move(path: Path, change: Edit) -> None:
    """Changes the affine (as sform alone, which may be sheared), and no voxel."""
    array, affine = np.array(voxels(path)), change(affine_of(path))
    image = nib.Nifti1Image(array, None)
    image.header.set_sform(affine, 1)
    image.header["qform_code"] = 0
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if np.isfinite(sizes).all() and (sizes > 0).all():
        image.header["pixdim"][1:4] = sizes
    nib.save(nib.Nifti1Image(array, None, image.header), path)


def patch_bytes(path: Path, offset: int, data: bytes) -> None:
    """Overwrites bytes of the unpacked file: of the header, if the offset is below 352."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(content), 1))
