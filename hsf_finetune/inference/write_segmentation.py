"""Writing segmentations in the form their scans came in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from hsf_finetune.data.volumes.hdf5_datasets import open_dataset
from hsf_finetune.data.volumes.nibabel_formats import save_image
from hsf_finetune.data.volumes.read_volume import Volume, is_hdf5
from hsf_finetune.system.atomic_files import atomic_write

if TYPE_CHECKING:
    import h5py

_MADE_BY = b"hsf_finetune segmentation"
_LONGEST = 79
"""Bytes of a NIfTI's description, before the zero that ends it."""


def write_segmentation(path: Path, labels: npt.NDArray[Any], scan: Volume) -> None:
    """Writes a segmentation of a scan, complete or not at all.

    A NIfTI gets the header of a scan that is one (shape, affine, sform and qform with their codes,
    units, intent, auxiliary file, extensions), apart from what describes voxel values; an HDF5
    file holds the dataset `label` with the scan's attributes, but for those that refer to other
    datasets of its file.

    Args:
        path: `.nii`, `.nii.gz`, `.h5` or `.hdf5`.
        labels: integers, (X, Y, Z).
        scan: the volume that was segmented.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    stored = labels.reshape(scan.stored_shape)
    with atomic_write(path) as temporary:
        if is_hdf5(path):
            _write_hdf5(temporary, stored, scan)
        else:
            save_image(nifti_like(stored, scan), temporary)


def nifti_like(voxels: npt.NDArray[Any], scan: Volume) -> Any:
    """A NIfTI image of voxels on a scan's grid, with the header of a scan that is one."""
    # NIfTI-1 or NIfTI-2 like the scan: a header of the other kind would lose its affine.
    is_nifti2 = isinstance(scan.header, nib.Nifti2Header)
    image_class: Any = nib.Nifti2Image if is_nifti2 else nib.Nifti1Image
    if scan.header is None:
        image = image_class(voxels, scan.affine)
        image.header.set_xyzt_units("mm")
    else:
        image = image_class(voxels, None, scan.header)  # with a copy of the header
        image.set_data_dtype(voxels.dtype)
        image.header["cal_min"], image.header["cal_max"] = 0, 0
    about = bytes(image.header["descrip"]).rstrip(b"\0")
    image.header["descrip"] = b"; ".join([_MADE_BY, about] if about else [_MADE_BY])[:_LONGEST]
    return image


def _write_hdf5(path: Path, labels: npt.NDArray[Any], scan: Volume) -> None:
    import h5py  # imported late: most scans are no HDF5 files

    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("label", data=labels, compression="gzip")
        dataset.attrs["affine"] = scan.affine
        dataset.attrs["spacing_mm"] = np.asarray(scan.spacing_mm)
        if is_hdf5(scan.ref.path):
            with open_dataset(scan.ref.path, scan.ref.key) as source:
                for name in _names_to_copy(source):
                    dataset.attrs[name] = source.attrs[name]


def _names_to_copy(source: h5py.Dataset) -> list[str]:
    """Names of attributes that mean in another file what they mean in their own.

    Those that refer to objects of a file do not, nor do those that make a dataset the scale of
    another one's axis.
    """
    import h5py

    of_scale = ("CLASS", "NAME") if h5py.h5ds.is_scale(source.id) else ()
    return [
        name
        for name in source.attrs
        if name not in of_scale and not _refers(source.attrs.get_id(name).dtype)
    ]


def _refers(dtype: np.dtype[Any]) -> bool:
    """Whether values of an HDF5 type are, or contain, references to objects of their file."""
    import h5py

    inner = [field[0] for field in (dtype.fields or {}).values()]
    inner += [
        one for one in (h5py.check_vlen_dtype(dtype), dtype.base) if isinstance(one, np.dtype)
    ]
    parts = [one for one in inner if one is not dtype]
    return h5py.check_ref_dtype(dtype) is not None or any(map(_refers, parts))
