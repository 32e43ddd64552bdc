"""Volumes in DICOM folders: the images of one series, sorted by where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.volumes.affines import Affine
from hsf_finetune.data.volumes.hdf5_datasets import refuse_damage
from hsf_finetune.data.volumes.itk_formats import Array, OpenedImage, affine_from_lps
from hsf_finetune.system.console import count_of, format_size
from hsf_finetune.system.errors import DataError

_SUFFIXES = ("", ".dcm", ".ima", ".dicom")
_NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG")
"""Modalities of files that describe images."""
_UNEVEN = 0.05
"""How far slices may lie from even distances, in distances."""
_CONVERT = "convert it with dcm2niix, or put the files of one volume into a folder of their own"


@dataclass(frozen=True)
class _Slice:
    """One image of a series: its file, and what its header says.

    Args:
        path: the file.
        position: of its first voxel, (3,), in mm, LPS.
        steps: to the next voxel along a row and along a column, (3, 2), in mm, LPS.
        shape: columns, rows and frames.
        dtype: of its voxels, rescaled.
    """

    path: Path
    position: npt.NDArray[np.float64]
    steps: npt.NDArray[np.float64]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM; such files often have no suffix, or the last part of a UID."""
    suffix = path.suffix.lower()
    if not (suffix in _SUFFIXES or suffix[1:].isdigit()) or path.name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_dicom_folder(path: Path) -> bool:
    """Whether a folder holds DICOM files itself, not only in folders below it."""
    return path.is_dir() and any(is_dicom_file(file) for file in sorted(path.iterdir()))


def series_files(folder: Path, key: str | None) -> list[Path]:
    """The files of a folder's only series, or of the one that the key names, in order of position.

    Raises:
        DataError: see `open_series`.
    """
    return [one.path for one in _sorted_slices(folder, key)]


def open_series(folder: Path, key: str | None) -> OpenedImage:
    """Opens a series of DICOM images as one volume.

    Voxels run along the rows, the columns and the slices of the images, the slices in the
    direction of the cross product of the two.

    Args:
        folder: that holds the files.
        key: the series' UID or its description; None if there is just one.

    Raises:
        DataError: there is no such series or several, or its images make no volume: they differ
            in size or direction, several lie in one place, or some are missing.
    """
    slices = _sorted_slices(folder, key)
    first, last = slices[0], slices[-1]
    through = (last.position - first.position) / (len(slices) - 1)
    affine: Affine = affine_from_lps(
        np.column_stack([first.steps, through]), first.position.tolist()
    )
    dtype = np.result_type(*(one.dtype for one in slices))

    def read() -> Array:
        return np.stack([_read_image(one.path, dtype) for one in slices]).T

    stored = sum(one.path.stat().st_size for one in slices)
    return OpenedImage((*first.shape[:2], len(slices)), dtype, affine, stored, read)


def _sorted_slices(folder: Path, key: str | None) -> list[_Slice]:
    slices = [_read_header(path) for path in _files_of_series(folder, key)]
    first = slices[0]
    if len(slices) < 2 or first.shape[2] > 1:
        raise DataError(
            "the DICOM series is no stack of images",
            file=folder,
            found=f"{count_of(len(slices), 'file')} of shape {first.shape}",
            expected="one file per slice",
            fix="convert it with dcm2niix",
        )
    differing = [
        one
        for one in slices
        if one.shape != first.shape or not np.allclose(one.steps, first.steps, atol=1e-3)
    ]
    if differing:
        raise DataError(
            "the images of the DICOM series differ in size, voxel size or direction",
            file=folder,
            found=f"{len(differing)} of {len(slices)}, such as {differing[0].path.name}",
            fix=_CONVERT,
        )
    normal = np.cross(first.steps[:, 0], first.steps[:, 1])
    normal /= max(float(np.linalg.norm(normal)), 1e-12)
    heights = np.array([one.position @ normal for one in slices])
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    step = float(np.median(gaps))
    doubled = int((gaps <= _UNEVEN * max(step, 1e-6)).sum())
    if doubled or step <= 0:
        raise DataError(
            "several images of the DICOM series lie in one place: echoes, times or directions",
            file=folder,
            found=f"{doubled} of {len(slices)}",
            fix=_CONVERT,
        )
    if (np.abs(gaps - step) > _UNEVEN * step).any():
        raise DataError(
            "the slices of the DICOM series lie at uneven distances, so some may be missing",
            file=folder,
            found=f"{count_of(len(slices), 'slice')}, {format_size(gaps.min(), 4)} to "
            f"{format_size(gaps.max(), 4)} mm apart",
            expected="one distance",
            fix="copy the series again from its archive",
        )
    return [slices[index] for index in order]


def _files_of_series(folder: Path, key: str | None) -> Sequence[Path]:
    import SimpleITK as sitk  # noqa: N813

    with refuse_damage(folder):
        names = {
            uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
            for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        }
    texts: dict[str, tuple[str, str]] = {}
    for uid, files in names.items():
        tags = _read_tags(Path(files[0]))
        if tags["0008|0060"] not in _NO_IMAGES:
            texts[uid] = (tags["0008|103e"], tags["0008|0060"])
    chosen = [uid for uid, (text, _) in texts.items() if key in (None, uid, text)]
    if len(chosen) != 1:
        listed = [f"{uid}  {m}  {t!r}, {len(names[uid])} files" for uid, (t, m) in texts.items()]
        several = "the folder holds several DICOM series"
        raise DataError(
            several if chosen else f"the folder holds no DICOM series '{key}'",
            file=folder,
            found="\n".join(listed) or "no image",
            expected="one series, or the key of one: its UID or its description",
            fix="predict --key UID_OR_DESCRIPTION; key: UID_OR_DESCRIPTION in the pattern of a "
            "dataset's YAML; or a folder for each series",
        )
    return [Path(name) for name in names[chosen[0]]]


def _read_header(path: Path) -> _Slice:
    import SimpleITK as sitk  # noqa: N813

    with refuse_damage(path):
        reader = _open(path)
        numbers = [
            [float(number) for number in _tag(reader, tag).split("\\") if number.strip()]
            for tag in ("0020|0032", "0020|0037", "0028|0030")
        ]
        pixel = sitk.Image([1, 1], reader.GetPixelID())
        dtype = np.dtype(sitk.GetArrayViewFromImage(pixel).dtype)
        size = (*reader.GetSize(), 1)[:3]
    position, directions, spacing = numbers
    if (len(position), len(directions), len(spacing)) != (3, 6, 2):
        raise DataError(
            "the DICOM image does not say where it lies",
            file=path,
            expected="image position, image orientation and pixel spacing",
            fix="convert the series with dcm2niix",
        )
    # The first spacing is that between rows, so it belongs to the step along a column.
    steps = np.reshape(directions, (2, 3)).T * spacing[::-1]
    return _Slice(path, np.array(position), steps, tuple(map(int, size)), dtype)


def _read_image(path: Path, dtype: np.dtype[Any]) -> Array:
    """The voxels of an image, (rows, columns)."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    return np.asarray(image.reshape(image.shape[-2:]), dtype=dtype)


def _open(path: Path) -> Any:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _tag(reader: Any, tag: str) -> str:
    """The text of a tag; empty if the file lacks it."""
    return str(reader.GetMetaData(tag)).strip() if reader.HasMetaDataKey(tag) else ""


def _read_tags(path: Path) -> dict[str, str]:
    with refuse_damage(path):
        reader = _open(path)
        return {tag: _tag(reader, tag) for tag in ("0008|0060", "0008|103e")}
