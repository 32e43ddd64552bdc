"""A scan as a user has it: files, nibabel images, or arrays with their affine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from hsf_finetune.data.volumes.affines import check_affine
from hsf_finetune.data.volumes.dicom_series import is_dicom_folder
from hsf_finetune.data.volumes.read_volume import (
    Volume,
    VolumeRef,
    make_volume,
    read_image,
    read_volume,
)
from hsf_finetune.inference.model_card import NO_GEOMETRY, Hdf5Geometry
from hsf_finetune.system.errors import DataError

Channel: TypeAlias = str | os.PathLike[str] | VolumeRef | SpatialImage | tuple[Any, Any]
"""A file, a folder of DICOM files, a nibabel image, or (array of shape (X, Y, Z), affine of shape (4, 4))."""

Scan: TypeAlias = Channel | Sequence[Channel]
"""One channel, or a list of all of them."""

_ARRAY = "predict((array, affine)), with an array of shape (X, Y, Z) and a 4x4 affine"
_CHANNELS = "one file, image or (array, affine) per channel: predict([t1, t2])"


def read_channels(
    scan: Scan, count: int, key: str | None = None, geometry: Hdf5Geometry = NO_GEOMETRY
) -> list[Volume]:
    """The volumes of a scan, one per channel.

    Args:
        scan: its channel, or a list of its channels.
        count: how many channels there must be.
        key: HDF5 dataset inside the files, or DICOM series in the folders; None if there is one.
        geometry: of HDF5 files that do not give one.

    Raises:
        DataError: the number of channels is wrong, or one of them cannot be used.
    """
    channels = _list_channels(scan)
    if len(channels) != count:
        raise DataError(
            "the model needs another number of input channels",
            file=_name(channels[0], 1) if channels else None,
            found=len(channels),
            expected=count,
            fix='predict(["t1.nii.gz", "t2.nii.gz"]), or t1.nii.gz,t2.nii.gz on the command line',
        )
    describe = partial(geometry.describe, key=key)
    return [_read_channel(one, number, describe) for number, one in enumerate(channels, start=1)]


# -------------------------------------------------------------------- internals
def _list_channels(scan: Scan) -> list[Channel]:
    if isinstance(scan, list):
        return scan
    if isinstance(scan, tuple) and not (len(scan) == 2 and _is_array(scan[0])):
        return list(scan)
    return [scan]  # type: ignore[list-item] # a Sequence that is no list or tuple is a path


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, SpatialImage)


def _read_channel(channel: Channel, number: int, describe: Callable[[Path], VolumeRef]) -> Volume:
    if isinstance(channel, VolumeRef):
        return read_volume(channel)
    if isinstance(channel, (str, os.PathLike)):
        return _read_file(Path(channel).expanduser(), describe)
    name = _name(channel, number)
    ref = VolumeRef(Path(name))
    if isinstance(channel, SpatialImage):
        _check_form(channel.shape, channel.get_data_dtype(), name)
        return _own(read_image(channel, ref), in_memory=not nib.is_proxy(channel.dataobj))
    if isinstance(channel, tuple) and len(channel) == 2:
        array = np.asarray(channel[0])
        _check_form(array.shape, array.dtype, name)
        return _own(make_volume(array, check_affine(channel[1], name, fix=_ARRAY), ref))
    raise DataError(
        "an array without an affine has no place in space"
        if _is_array(channel)
        else "not a scan that can be segmented",
        file=name,
        found=type(channel).__name__,
        expected="a file, a nibabel image, or an array and its affine",
        fix=_ARRAY,
    )


def _own(volume: Volume, in_memory: bool = True) -> Volume:
    """A volume that stays as it is when the caller changes the array or image that it is of."""
    array = volume.array.copy() if in_memory else volume.array
    header = None if volume.header is None else volume.header.copy()
    return replace(volume, array=array, affine=volume.affine.copy(), header=header)


def _read_file(path: Path, describe: Callable[[Path], VolumeRef]) -> Volume:
    if path.is_dir() and not is_dicom_folder(path):
        raise DataError(
            "a scan is a file or a folder of DICOM files, and this is another folder",
            file=path,
            fix=f"hsf-finetune predict RUN {path} -o SEGMENTATIONS segments every scan in it",
        )
    if not path.exists():
        parts = str(path).split(",")
        files = len(parts) > 1 and f"the channels as a list: predict({parts})"
        raise DataError("no such file", file=path, fix=files or None)
    return read_volume(describe(path))


def _name(channel: Channel, number: int) -> str:
    """What messages call a channel."""
    if isinstance(channel, SpatialImage):
        return channel.get_filename() or f"channel {number} (image in memory)"
    if isinstance(channel, (str, os.PathLike, VolumeRef)):
        return str(channel)
    return f"channel {number} (array)"


def _check_form(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Refuses what is no volume of numbers, or several of them."""
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or dtype.kind not in "biuf":
        raise DataError(
            "not a volume of numbers",
            file=name,
            found=f"shape {tuple(shape)}, {dtype}",
            expected="shape (X, Y, Z), integers or real numbers",
            fix=_CHANNELS,
        )
