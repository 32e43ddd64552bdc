"""Reading volumes with their geometry: NIfTI, MGH, NRRD, MetaImage, HDF5 and DICOM series."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip
from nibabel.spatialimages import SpatialImage

from hsf_finetune.data.volumes.affines import Affine, hdf5_affine, voxel_size_mm
from hsf_finetune.data.volumes.dicom_series import is_dicom_file, is_dicom_folder, open_series
from hsf_finetune.data.volumes.grey_values import GreyValues
from hsf_finetune.data.volumes.hdf5_datasets import open_dataset, refuse_damage
from hsf_finetune.data.volumes.itk_formats import ITK, OpenedImage, open_itk
from hsf_finetune.data.volumes.nibabel_formats import (
    HEADER_BYTES,
    MGH,
    NIFTI,
    check_is_finite,
    check_nibabel_header,
    is_gz,
    nifti_header,
    open_nifti_or_mgh,
)
from hsf_finetune.data.volumes.outside import Box
from hsf_finetune.data.volumes.volume_size import refuse_huge
from hsf_finetune.system.errors import DataError

if TYPE_CHECKING:
    import h5py

HDF5 = (".h5", ".hdf5")
SUFFIXES = NIFTI + HDF5 + MGH + ITK
_OTHER_FORMATS = ".mnc .dcm .ima .img .hdr .par .head .gipl .vtk .vti .tif .tiff .zarr .npz .npy"
FOREIGN = (*_OTHER_FORMATS.split(), *(f".nii.{packed}" for packed in ("bz2", "xz", "zst", "zip")))
"""Suffixes of images that have to be converted."""

_SINGLE = {b"n+1": nib.Nifti1Image, b"n+2": nib.Nifti2Image}
"""Magic bytes of NIfTI files that hold header and voxels."""
_PADDING_BYTES = 1 << 20
"""So much may follow the last voxel of a compressed file."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, init=False)
class VolumeRef:
    """The file (and the dataset in it) that holds a volume.

    The path is kept as text, `file`: a `Path` takes four times the memory, and there may be tens
    of thousands.

    Args:
        path: file, or folder of DICOM files.
        key: HDF5 dataset inside the file, or UID or description of the folder's series; None if
            there is just one.
        spacing_mm: voxel size for an HDF5 dataset without one.
        affine: 4x4 matrix for an HDF5 dataset without one, row by row.
    """

    file: str
    key: str | None
    spacing_mm: tuple[float, ...] | None
    affine: tuple[tuple[float, ...], ...] | None

    def __init__(
        self,
        path: Path,
        key: str | None = None,
        spacing_mm: tuple[float, ...] | None = None,
        affine: tuple[tuple[float, ...], ...] | None = None,
    ) -> None:
        for name, value in zip(self.__slots__, (str(path), key, spacing_mm, affine), strict=True):
            object.__setattr__(self, name, value)

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.file)

    def moved_to(self, path: Path) -> VolumeRef:
        """The same in another file or folder."""
        return VolumeRef(path, self.key, self.spacing_mm, self.affine)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> VolumeRef:
        """What `to_dict` describes."""
        spacing, affine = plain.get("spacing_mm"), plain.get("affine")
        return cls(
            Path(plain["path"]),
            plain.get("key"),
            tuple(spacing) if spacing else None,
            tuple(map(tuple, affine)) if affine else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain types."""
        geometry = {"spacing_mm": self.spacing_mm, "affine": self.affine}
        return {"path": self.file, "key": self.key, **geometry}

    def __str__(self) -> str:
        """`path`, or `path:key`."""
        return f"{self.file}:{self.key}" if self.key else self.file


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

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the three array axes, in mm."""
        return voxel_size_mm(self.affine)

    @cached_property
    def grey(self) -> GreyValues:
        """Its grey values."""
        return GreyValues(self.array)

    def grey_in(self, box: Box | None) -> GreyValues:
        """Those of a part; of the whole, what was found in it before is used again."""
        part = self.array if box is None else self.array[box]
        return self.grey if part.shape == self.array.shape else GreyValues(part)


def stem(path: Path) -> str:
    """Name without its volume suffix (`a.nii.gz` -> `a`); that of a folder as it is."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        suffix = "" if path.is_dir() else path.suffix
    return path.name[: len(path.name) - len(suffix)]


def is_volume(path: Path) -> bool:
    """Whether the name ends like a file that `read_volume` reads."""
    return path.name.lower().endswith(SUFFIXES)


def holds_volume(path: Path) -> bool:
    """Whether `read_volume` reads the path: a file with such a name, or a folder of DICOM files."""
    return is_volume(path) if path.is_file() else is_dicom_folder(path)


def has_keys(path: Path) -> bool:
    """Whether a key chooses one of several volumes: HDF5 files, and folders of DICOM files."""
    return is_hdf5(path) or path.is_dir()


def file_stamp(path: Path) -> tuple[int, int, int]:
    """Size and times of change (mtime and ctime in ns); of a folder over all of its files.

    Raises:
        OSError: there is no such file.
    """
    files = [path, *path.iterdir()] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    newest = [max(one.st_mtime_ns for one in stats), max(one.st_ctime_ns for one in stats)]
    return (sum(one.st_size for one in stats), newest[0], newest[1])


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
            refuse_huge(node.shape, node.dtype.itemsize, ref)
            _check_type(node.dtype, ref)
            return make_volume(np.asarray(node[()]), _affine_of_hdf5(node, ref), ref)
    if opened := _open_with_itk(ref):
        refuse_huge(opened.shape, opened.dtype.itemsize, ref, opened.stored_bytes)
        with refuse_damage(ref):
            array = opened.read()
        return make_volume(array, opened.affine, ref)
    return _read_with_nibabel(ref)


def read_shape(ref: VolumeRef) -> tuple[tuple[int, ...], Affine]:
    """Stored shape and affine of a volume, without reading its voxels.

    Raises:
        DataError: as `read_volume`, for faults of the header.
    """
    if is_hdf5(ref.path):
        with open_dataset(ref.path, ref.key) as node:
            return tuple(node.shape), _affine_of_hdf5(node, ref)
    if opened := _open_with_itk(ref):
        return opened.shape, opened.affine
    image = open_nifti_or_mgh(_known(ref))
    return tuple(map(int, image.shape)), np.asarray(image.affine, dtype=np.float64)


def _open_with_itk(ref: VolumeRef) -> OpenedImage | None:
    """The image with its header, of the formats that SimpleITK reads."""
    if ref.path.is_dir():
        opened = open_series(ref.path, ref.key)
    elif ref.path.name.lower().endswith(ITK):
        opened = open_itk(ref.path)
    else:
        return None
    check_is_finite(opened.affine, ref.path)
    return opened


def _read_with_nibabel(ref: VolumeRef) -> Volume:
    path = _known(ref)
    if not is_gz(path):
        image = open_nifti_or_mgh(path)
        refuse_huge(image.shape, image.get_data_dtype().itemsize, ref)
        return read_image(image, ref)
    kind: Any = None
    # Faster than nibabel's `load`, which reads the start of the file several times.
    with refuse_damage(ref), igzip.open(path) as file:
        start = file.read(HEADER_BYTES)
        header: Any = nifti_header(start)
        if header is not None and path.name.lower().endswith(NIFTI):
            kind = _SINGLE.get(header["magic"].item())
        if kind:
            shape, dtype = header.get_data_shape(), header.get_data_dtype()
            offset = int(header["vox_offset"])
        else:
            image = open_nifti_or_mgh(path)
            voxels: Any = image.dataobj
            kind, shape, dtype = type(image), image.shape, image.get_data_dtype()
            offset = voxels.offset
        # nibabel stops reading at the last voxel, before the checksum that reveals damaged voxels.
        most = offset + refuse_huge(shape, dtype.itemsize, ref) + _PADDING_BYTES
        content = start + file.read(most + 1 - len(start))
        if len(content) > most:
            raise ValueError(f"it goes on behind its {most - _PADDING_BYTES} bytes of voxels")
        image = kind.from_bytes(content)
    return read_image(image, ref)


def _known(ref: VolumeRef) -> Path:
    """The path of a file whose name says that it is NIfTI or MGH.

    Raises:
        DataError: the name says otherwise.
    """
    if ref.path.name.lower().endswith(NIFTI + MGH):
        return ref.path
    raise DataError(
        "not a volume that can be read",
        file=ref.path,
        found=ref.path.suffix or "no suffix",
        expected=", ".join(SUFFIXES) + " or a folder of DICOM files",
        fix="give the folder of the DICOM series"
        if is_dicom_file(ref.path)
        else "convert it to NIfTI, for example with mri_convert (FreeSurfer) or SimpleITK",
    )


def read_image(image: SpatialImage, ref: VolumeRef) -> Volume:
    """The volume of a nibabel image in memory; `ref` names it in messages.

    Raises:
        DataError: as `read_volume`.
    """
    check_nibabel_header(image, ref.path)
    with refuse_damage(ref):
        array = np.asanyarray(image.dataobj)
    scaled = image.get_data_dtype().kind in "iu" and array.dtype.kind == "f"
    step = abs(float(getattr(image.dataobj, "slope", 1.0))) if scaled else 0.0
    header = image.header if isinstance(image.header, nib.Nifti1Header) else None
    return make_volume(array, np.asarray(image.affine, dtype=np.float64), ref, step, header)


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
            fix="convert the scan to grey values",
        )


def _affine_of_hdf5(node: h5py.Dataset, ref: VolumeRef) -> Affine:
    attributes = ChainMap(node.attrs, node.file.attrs)
    return hdf5_affine(attributes, ref.spacing_mm, ref.affine, ref)
