"""Reading volumes from NIfTI and HDF5, with their geometry."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import SpatialImage

from hsf_finetune.data.volumes.affines import (
    Affine,
    corner_shift_mm,
    format_affine,
    hdf5_affine,
    voxel_size_mm,
)
from hsf_finetune.system.errors import DataError

NIFTI = (".nii.gz", ".nii")
HDF5 = (".h5", ".hdf5")
SUFFIXES = NIFTI + HDF5
_HDF5_FAULTS = (OSError, RuntimeError, KeyError)

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
        raise DataError("no such file", file=ref.path)
    if is_hdf5(ref.path):
        key = hdf5_key(ref)
        with _refuse_damage(ref, _HDF5_FAULTS), h5py.File(ref.path, "r") as file:
            array, attributes = np.asarray(file[key][()]), {**file.attrs, **file[key].attrs}
        return make_volume(array, hdf5_affine(attributes, ref.spacing_mm, ref.affine, ref), ref)
    if is_volume(ref.path):
        return _read_nifti(ref)
    raise DataError(
        "not a volume that can be read",
        file=ref.path,
        found=ref.path.suffix or "no suffix",
        expected=" or ".join(SUFFIXES),
    )


def read_shape(ref: VolumeRef) -> tuple[tuple[int, ...], Affine]:
    """Stored shape and affine of a volume, without reading its voxels.

    Raises:
        DataError: as `read_volume`, for faults of the header.
    """
    if not is_hdf5(ref.path):
        image = _open_nifti(ref)
        return tuple(image.shape), np.asarray(image.affine, dtype=np.float64)
    key = hdf5_key(ref)
    with h5py.File(ref.path, "r") as file:
        attributes = {**file.attrs, **file[key].attrs}
        return tuple(file[key].shape), hdf5_affine(attributes, ref.spacing_mm, ref.affine, ref)


def _read_nifti(ref: VolumeRef) -> Volume:
    image = _open_nifti(ref)
    if ref.path.name.lower().endswith(".gz"):
        # nibabel stops reading at the last voxel, before the checksum that reveals damaged voxels.
        with _refuse_damage(ref):
            image = type(image).from_bytes(gzip.decompress(ref.path.read_bytes()))
    return read_image(image, ref)


def read_image(image: SpatialImage, ref: VolumeRef) -> Volume:
    """The volume of a nibabel image in memory; `ref` names it in messages.

    Raises:
        DataError: as `read_volume`.
    """
    _check_header(image, ref)
    with _refuse_damage(ref):
        array = np.asanyarray(image.dataobj)
    scaled = image.get_data_dtype().kind in "iu" and array.dtype.kind == "f"
    step = abs(float(getattr(image.dataobj, "slope", 1.0))) if scaled else 0.0
    header = image.header if isinstance(image.header, nib.Nifti1Header) else None
    return make_volume(array, np.asarray(image.affine, dtype=np.float64), ref, step, header)


def _open_nifti(ref: VolumeRef) -> nib.Nifti1Image:
    """The image with a checked header; voxels are read later."""
    with _refuse_damage(ref):
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
    with _refuse_damage(ref):  # nibabel raises many kinds for an impossible quaternion
        sform, qform = image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]
    if sform is None or qform is None:
        return
    shift = corner_shift_mm(sform, qform, image.shape)
    if not shift <= max(5e-2, 0.1 * min(voxel_size_mm(sform))):
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
    if array.dtype.kind not in "biuf":
        raise DataError(
            "voxels are not numbers",
            file=ref,
            found=str(array.dtype),
            expected="one real number per voxel",
            fix="convert the scan to grey values, or list it under the dataset's exclude:",
        )
    return Volume(array, affine, stored, ref, step, header)


@contextmanager
def _refuse_damage(
    ref: VolumeRef, faults: tuple[type[Exception], ...] = (Exception,)
) -> Iterator[None]:
    """Makes one error of what libraries raise for a damaged file: nibabel and zlib many kinds."""
    try:
        yield
    except faults as error:
        raise DataError(
            "the file is damaged or incomplete",
            file=ref,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            expected="a complete NIfTI or HDF5 file",
            fix="copy or convert it again, or list it under the dataset's exclude:",
        ) from error


def hdf5_key(ref: VolumeRef) -> str:
    """The dataset to read: the one that `ref` names, or the only one of the file.

    Raises:
        DataError: no dataset has that name, or `ref` names none of several.
    """
    with _refuse_damage(ref, _HDF5_FAULTS), h5py.File(ref.path, "r") as file:
        # A key may be a link, which visiting the file would not show.
        if ref.key and isinstance(file.get(ref.key), h5py.Dataset):
            return ref.key.strip("/")
        found: list[str] = []
        file.visititems(
            lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None
        )
    if ref.key is None and len(found) == 1:
        return found[0]
    several = "holds several datasets and none is named"
    what = several if ref.key is None else f"has no dataset '{ref.key}'"
    raise DataError(
        f"the HDF5 file {what}",
        file=ref.path,
        found=", ".join(found) or "no dataset at all",
        fix="set key: (or mri_key: and label_key:) in the pattern to one of these",
    )
