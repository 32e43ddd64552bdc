"""NIfTI and MGH images: opening them, and what is refused in their headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.spatialimages import SpatialImage

from hsf_finetune.data.volumes.affines import (
    Affine,
    corner_shift_mm,
    format_affine,
    grid_noise_mm,
)
from hsf_finetune.data.volumes.hdf5_datasets import refuse_damage
from hsf_finetune.system.console import format_size
from hsf_finetune.system.errors import DataError

NIFTI = (".nii.gz", ".nii")
MGH = (".mgz", ".mgh")

HEADER_BYTES = nib.Nifti2Header.sizeof_hdr
"""The header of a NIfTI has no more."""
_MAX_HEADER_BYTES = 1 << 26
_GZIP_LEVEL = 2
"""Smaller than level 1 of zlib, in a fifth of its time."""


def open_nifti_or_mgh(path: Path) -> SpatialImage:
    """The image with a checked header; voxels are read later.

    Raises:
        DataError: the file is damaged, or its header contradicts itself.
    """
    with refuse_damage(path):
        # nibabel reads everything before the voxels, however much a header says there is.
        read_nifti_header(path)
        image = nib.load(path)
    wanted = nib.MGHImage if path.name.lower().endswith(MGH) else nib.Nifti1Image
    if not isinstance(image, wanted):
        raise DataError("not an image as its name says", file=path, found=type(image).__name__)
    check_nibabel_header(image, path)
    checked: SpatialImage = image
    return checked


def read_nifti_header(path: Path) -> nib.Nifti1Header | None:
    """The header of a NIfTI, whose values are not checked but for the size; None of other files.

    Raises:
        ValueError: it says that voxels begin far behind it, or has too many axes.
    """
    with igzip.open(path) if is_gz(path) else path.open("rb") as file:
        return nifti_header(file.read(HEADER_BYTES))


def nifti_header(block: bytes) -> nib.Nifti1Header | None:
    """The same of the first bytes of a file."""
    kinds: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)
    for kind in kinds:
        if kind.may_contain_header(block):
            header: nib.Nifti1Header = kind(block[: kind.sizeof_hdr], check=False)
            if not header["vox_offset"] <= _MAX_HEADER_BYTES:
                raise ValueError(f"voxels begin at byte {header['vox_offset']}")
            if not 0 <= header["dim"][0] <= 7:
                raise ValueError(f"{header['dim'][0]} axes, where a NIfTI has 7 at most")
            return header
    return None


def check_nibabel_header(image: SpatialImage, path: Path) -> None:
    """Refuses an affine that is not finite, and a sform and a qform that differ.

    Libraries disagree on which of the two counts, so such a file would be segmented in
    one place and displayed in another.
    """
    check_is_finite(image.affine, path)
    if isinstance(image, nib.MGHImage) and int(image.header["goodRASFlag"]) != 1:
        raise DataError(
            "the MGH header does not say where the volume's axes point",
            file=path,
            found="goodRASFlag 0",
            fix="convert it again from its source: mri_convert SOURCE OUT.mgz",
        )
    if not isinstance(image, nib.Nifti1Image):
        return
    with refuse_damage(path):  # nibabel raises many kinds for an impossible quaternion
        sform, qform = image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]
    if sform is None or qform is None:
        return
    shift = corner_shift_mm(sform, qform, image.shape)
    if not shift <= grid_noise_mm(sform, 5e-2, 0.1):
        raise DataError(
            "the header's sform and qform place the volume differently",
            file=path,
            found=f"a corner differs by {format_size(shift)} mm",
            fix="decide which one is right and write it to both, for example with nibabel: "
            "img.set_qform(img.get_sform(), 1)",
        )


def check_is_finite(affine: Affine, path: Path) -> None:
    """Refuses an affine that holds NaN or infinity."""
    if not np.isfinite(affine).all():
        raise DataError(
            "the affine holds NaN or infinity",
            file=path,
            found=format_affine(affine),
            fix="convert the volume again",
        )


def save_image(image: Any, path: Path) -> None:
    """Writes a NIfTI image of nibabel's; the same image gives the same bytes, whenever and wherever."""
    with path.open("wb") as file:
        if is_gz(path):
            with igzip.IGzipFile("", "wb", _GZIP_LEVEL, fileobj=file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)


def is_gz(path: Path) -> bool:
    """Whether the name says that the file is compressed."""
    return path.name.lower().endswith((".gz", ".mgz"))
