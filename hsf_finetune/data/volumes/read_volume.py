"""Reading volumes from NIfTI and HDF5, with their geometry."""

from __future__ import annotations

import gzip
import math
import os
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import psutil
from nibabel.spatialimages import SpatialImage

from hsf_finetune.data.volumes.affines import (
    Affine,
    corner_shift_mm,
    format_affine,
    grid_noise_mm,
    hdf5_affine,
    voxel_size_mm,
)
from hsf_finetune.data.volumes.hdf5_datasets import open_dataset, refuse_damage
from hsf_finetune.system.errors import DataError

NIFTI = (".nii.gz", ".nii")
HDF5 = (".h5", ".hdf5")
SUFFIXES = NIFTI + HDF5
_OTHER_FORMATS = (
    ".mgz .mgh .mnc .nrrd .nhdr .mha .mhd .dcm .ima .img .hdr .par .head .gipl .vtk .vti .tif .tiff .zarr"
    " .npz .npy"
)
FOREIGN = (*_OTHER_FORMATS.split(), *(f".nii.{packed}" for packed in ("bz2", "xz", "zst", "zip")))
"""Suffixes of images that have to be converted."""

_PADDING_BYTES = 1 << 20
"""So much may follow the last voxel of a compressed file."""
_MAX_HEADER_BYTES = 1 << 26
_SURELY_BYTES, _DENSEST = 1 << 30, 500
"""A file that claims more than this, and so many times its own size, is damaged or hostile:
only constant volumes are stored so densely."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class VolumeRef:
    """The file (and the dataset in it) that holds a volume.

    Args:
        path: NIfTI or HDF5 file.
        key: HDF5 dataset inside the file; None if the file holds just one.
        spacing_mm: voxel size for an HDF5 dataset without one.
        affine: 4x4 matrix for an HDF5 dataset without one, row by row.
    """

    path: Path
    key: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None

    def __str__(self) -> str:
        """`path`, or `path:key`."""
        return f"{self.path}:{self.key}" if self.key else str(self.path)


@dataclass(frozen=True)
class Volume:
    """A volume on the grid of its file.

    Args:
        array: voxel values, (X, Y, Z).
        affine: 4x4, from voxel to RAS+ millimetres.
        stored_shape: the file's own shape; may end in axes of length 1.
        ref: the file it was read from.
        step: smallest difference of two values that a file of scaled integers can hold;
            0 for other files.
        header: of a NIfTI; None for other files.
    """

    array: Array
    affine: Affine
    stored_shape: tuple[int, ...]
    ref: VolumeRef
    step: float = 0.0
    header: nib.Nifti1Header | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the three array axes, in mm."""
        return voxel_size_mm(self.affine)


def stem(path: Path) -> str:
    """File name without its volume suffix (`a.nii.gz` -> `a`)."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def is_volume(path: Path) -> bool:
    """Whether the name ends like a file that `read_volume` reads."""
    return path.name.lower().endswith(SUFFIXES)


def is_hdf5(path: Path) -> bool:
    """Whether the name ends like an HDF5 file."""
    return path.name.lower().endswith(HDF5)


def read_volume(ref: VolumeRef) -> Volume:
    """Reads a volume and its geometry.

    HDF5 geometry comes from the attributes `affine` (4x4, voxel to RAS+ mm) or
    `spacing_mm` (3) of the dataset or file, else from the reference.

    Raises:
        DataError: the file is missing, damaged or not three-dimensional, or its
            geometry is missing or contradicts itself.
    """
    if not ref.path.exists():
        target = f"a link to {os.readlink(ref.path)}" if ref.path.is_symlink() else None
        raise DataError("no such file", file=ref.path, found=target)
    if is_hdf5(ref.path):
        with open_dataset(ref.path, ref.key) as node:
            _refuse_huge(node.shape, node.dtype.itemsize, ref)
            _check_type(node.dtype, ref)
            return make_volume(np.asarray(node[()]), _affine_of_hdf5(node, ref), ref)
    if is_volume(ref.path):
        return _read_nifti(ref)
    raise DataError(
        "not a volume that can be read",
        file=ref.path,
        found=ref.path.suffix or "no suffix",
        expected=" or ".join(SUFFIXES),
        fix="convert it to NIfTI, for example with mri_convert (FreeSurfer), dcm2niix (DICOM), or "
        "SimpleITK",
    )


def read_shape(ref: VolumeRef) -> tuple[tuple[int, ...], Affine]:
    """Stored shape and affine of a volume, without reading its voxels.

    Raises:
        DataError: as `read_volume`, for faults of the header.
    """
    if not is_hdf5(ref.path):
        image = _open_nifti(ref)
        return tuple(image.shape), np.asarray(image.affine, dtype=np.float64)
    with open_dataset(ref.path, ref.key) as node:
        return tuple(node.shape), _affine_of_hdf5(node, ref)


def _read_nifti(ref: VolumeRef) -> Volume:
    image = _open_nifti(ref)
    size = _refuse_huge(image.shape, image.get_data_dtype().itemsize, ref)
    if _is_gz(ref):
        # nibabel stops reading at the last voxel, before the checksum that reveals damaged voxels.
        voxels: Any = image.dataobj
        most = voxels.offset + size + _PADDING_BYTES
        with refuse_damage(ref), gzip.open(ref.path) as file:
            content = file.read(most + 1)
            if len(content) > most:
                raise ValueError(f"it goes on behind its {size} bytes of voxels")
            image = type(image).from_bytes(content)
    return read_image(image, ref)


def read_image(image: SpatialImage, ref: VolumeRef) -> Volume:
    """The volume of a nibabel image in memory; `ref` names it in messages.

    Raises:
        DataError: as `read_volume`.
    """
    _check_header(image, ref)
    with refuse_damage(ref):
        array = np.asanyarray(image.dataobj)
    scaled = image.get_data_dtype().kind in "iu" and array.dtype.kind == "f"
    step = abs(float(getattr(image.dataobj, "slope", 1.0))) if scaled else 0.0
    header = image.header if isinstance(image.header, nib.Nifti1Header) else None
    return make_volume(array, np.asarray(image.affine, dtype=np.float64), ref, step, header)


def _open_nifti(ref: VolumeRef) -> nib.Nifti1Image:
    """The image with a checked header; voxels are read later."""
    with refuse_damage(ref):
        # nibabel reads everything before the voxels, however much a header says there is.
        with gzip.open(ref.path) if _is_gz(ref) else ref.path.open("rb") as file:
            block = file.read(nib.Nifti2Header.sizeof_hdr)
        kinds: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)
        for kind in kinds:
            if kind.may_contain_header(block):
                offset = kind(block[: kind.sizeof_hdr], check=False)["vox_offset"]
                if not offset <= _MAX_HEADER_BYTES:
                    raise ValueError(f"voxels begin at byte {offset}")
        image = nib.load(ref.path)
    if not isinstance(image, nib.Nifti1Image):
        raise DataError("not a NIfTI image", file=ref.path, found=type(image).__name__)
    _check_header(image, ref)
    return image


def _check_header(image: SpatialImage, ref: VolumeRef) -> None:
    """Refuses an affine that is not finite, and a sform and a qform that differ.

    Libraries disagree on which of the two counts, so such a file would be segmented in
    one place and displayed in another.
    """
    if not np.isfinite(image.affine).all():
        raise DataError(
            "the affine holds NaN or infinity",
            file=ref.path,
            found=format_affine(image.affine),
            fix="convert the volume again, or list it under the dataset's exclude:",
        )
    if not isinstance(image, nib.Nifti1Image):
        return
    with refuse_damage(ref):  # nibabel raises many kinds for an impossible quaternion
        sform, qform = image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]
    if sform is None or qform is None:
        return
    shift = corner_shift_mm(sform, qform, image.shape)
    if not shift <= grid_noise_mm(sform, 5e-2, 0.1):
        raise DataError(
            "the header's sform and qform place the volume differently",
            file=ref.path,
            found=f"a corner differs by {shift:.2f} mm",
            fix="decide which one is right and write it to both, for example with nibabel: "
            "img.set_qform(img.get_sform(), 1)",
        )


def make_volume(
    array: Array,
    affine: Affine,
    ref: VolumeRef,
    step: float = 0.0,
    header: nib.Nifti1Header | None = None,
) -> Volume:
    """A `Volume`, which explains the arguments; axes of length 1 behind the third are left out.

    Raises:
        DataError: it is not three-dimensional, or not of real numbers.
    """
    stored = array.shape
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise DataError(
            "the volume is not three-dimensional",
            file=ref,
            found=f"shape {stored}",
            expected="(X, Y, Z)",
            fix="split a series into one file per volume; give channels as a list under mri:",
        )
    _check_type(array.dtype, ref)
    return Volume(array, affine, stored, ref, step, header)


def _check_type(dtype: np.dtype[Any], ref: VolumeRef) -> None:
    if dtype.kind not in "biuf":
        raise DataError(
            "voxels are not numbers",
            file=ref,
            found=str(dtype),
            expected="one real number per voxel",
            fix="convert the scan to grey values, or list it under the dataset's exclude:",
        )


def _refuse_huge(shape: Sequence[int], itemsize: int, ref: VolumeRef) -> int:
    """The bytes of a volume's voxels; refuses those that cannot be in the file, or in memory."""
    size, stored = math.prod(map(int, shape)) * itemsize, ref.path.stat().st_size
    free = psutil.virtual_memory().available
    too_dense = size > max(_SURELY_BYTES, _DENSEST * stored)
    if too_dense or size > free:
        raise DataError(
            "the volume is too large to be read",
            file=ref,
            found=f"shape {tuple(shape)}, {size / 1e9:.3g} GB of voxels, in a file of "
            f"{stored / 1e6:.3g} MB",
            expected="voxels that the file has room for" if too_dense else f"{free / 1e9:.3g} GB",
            fix="crop it, or list it under the dataset's exclude:",
        )
    return size


def _affine_of_hdf5(node: h5py.Dataset, ref: VolumeRef) -> Affine:
    attributes = ChainMap(node.attrs, node.file.attrs)
    return hdf5_affine(attributes, ref.spacing_mm, ref.affine, ref)


def _is_gz(ref: VolumeRef) -> bool:
    return ref.path.name.lower().endswith(".gz")
