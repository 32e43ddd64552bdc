"""Volumes that SimpleITK reads: NRRD and MetaImage files; DICOM series are in `dicom_series`."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.volumes.affines import Affine
from hsf_finetune.data.volumes.hdf5_datasets import refuse_damage
from hsf_finetune.system.errors import DataError

ITK = (".nrrd", ".nhdr", ".mha", ".mhd")

_NRRD = (".nrrd", ".nhdr")
_MAX_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_NRRD_END = re.compile(rb"\r?\n\r?\n")
_META_END = re.compile(rb"^ElementDataFile\s*=.*\n?", re.M)
_FIELD = re.compile(r"^([A-Za-z ]+?)\s*[:=]\s*(?!=)(.*)$", re.M)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OpenedImage:
    """An image of which only the header has been read.

    Args:
        shape: (X, Y, Z), or another number of axes.
        dtype: of its voxels.
        affine: 4x4, from voxel to RAS+ millimetres.
        stored_bytes: of its files.
        read: reads the voxels, (X, Y, Z).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: Affine
    stored_bytes: int
    read: Callable[[], Array]


def open_itk(path: Path) -> OpenedImage:
    """Opens a NRRD or MetaImage file, whose header may lie beside its voxels.

    Raises:
        DataError: it is damaged, its voxels lie in another folder or in several files, or it
            does not say where its axes point.
    """
    import SimpleITK as sitk  # noqa: N813 # imported late: most data are NIfTI or HDF5

    with refuse_damage(path):
        data = _find_voxels(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with refuse_damage(path):
        reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1 or reader.GetDimension() < 3:
        raise DataError(
            "the volume is not three-dimensional",
            file=path,
            found=f"{reader.GetDimension()} axes, {reader.GetNumberOfComponents()} numbers per voxel",
            expected="(X, Y, Z), one number per voxel",
            fix="split it into one file per volume; give channels as a list under mri:",
        )
    size, axes = reader.GetSize(), reader.GetDimension()
    directions = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3]
    affine = affine_from_lps(directions * reader.GetSpacing()[:3], reader.GetOrigin()[:3])
    dtype = np.dtype(sitk.GetArrayViewFromImage(sitk.Image([1, 1], reader.GetPixelID())).dtype)

    def read() -> Array:
        data.check_compressed(math.prod(size) * dtype.itemsize)
        array: Array = sitk.GetArrayFromImage(reader.Execute()).T
        return array

    stored = path.stat().st_size + (data.path.stat().st_size if data.path != path else 0)
    return OpenedImage(tuple(map(int, size)), dtype, affine, stored, read)


def affine_from_lps(steps: npt.ArrayLike, origin: Sequence[float]) -> Affine:
    """The 4x4 matrix to RAS+ millimetres.

    Args:
        steps: (3, 3), its columns the steps along the voxel axes, in mm along left, posterior and
            superior, as in DICOM and ITK.
        origin: (3,), the position of the first voxel along the same axes.
    """
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    ras: Affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return ras + 0.0  # no negative zeros


@dataclass(frozen=True)
class _StoredVoxels:
    """Where the voxels of an image begin, and whether they are compressed with zlib or gzip."""

    path: Path
    offset: int
    is_compressed: bool

    def check_compressed(self, size: int) -> None:
        """Reads compressed voxels to their end, since ITK accepts damaged and incomplete ones.

        Args:
            size: of the voxels, in bytes.

        Raises:
            ValueError, zlib.error: they are damaged, or not as many.
        """
        if not self.is_compressed:
            return
        stream, found = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while not stream.eof and found <= size:
                packed = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
                if not packed:
                    raise ValueError("its compressed voxels are incomplete")
                found += len(stream.decompress(packed, _CHUNK_BYTES))
        if found != size:
            raise ValueError(f"more or fewer than its {size} bytes of voxels")


def _find_voxels(path: Path) -> _StoredVoxels:
    """Checks what ITK takes as it comes, and finds the voxels.

    A header may name any file of this machine as the one with its voxels, and NRRD without a
    `space:` is placed as if its axes ran left, posterior and superior.
    """
    is_nrrd = path.suffix.lower() in _NRRD
    with path.open("rb") as file:
        content = file.read(_MAX_HEADER_BYTES)
    end = (_NRRD_END if is_nrrd else _META_END).search(content)
    header = content[: end.end() if end else None].decode("latin-1")
    fields = {name.lower(): value.strip() for name, value in _FIELD.findall(header)}
    if is_nrrd and "space" not in fields:
        raise DataError(
            "the NRRD header does not say where its axes point",
            file=path,
            expected="space: (such as left-posterior-superior) and space directions:",
            fix="write it again from a program that keeps the geometry, such as 3D Slicer",
        )
    compressed = fields.get("encoding", "") in ("gzip", "gz")
    compressed |= fields.get("compresseddata", "").lower() == "true"
    compressed &= not {"line skip", "lineskip", "byte skip", "byteskip"} & fields.keys()
    names = [fields[key] for key in ("data file", "datafile", "elementdatafile") if key in fields]
    if not names or names == ["LOCAL"]:
        return _StoredVoxels(path, end.end() if end else 0, compressed)
    name = names[0]
    if Path(name).name != name or "\\" in name or "%" in name or name.upper().startswith("LIST"):
        raise DataError(
            "the header says that its voxels lie in another folder, or in several files, which "
            "are not read",
            file=path,
            found=name,
            expected="one file of voxels, beside the header or in it",
            fix="write it as one .nrrd or .mha file",
        )
    if not path.with_name(name).is_file():
        raise DataError("the file of the voxels is missing", file=path, found=name)
    return _StoredVoxels(path.with_name(name), 0, compressed)
