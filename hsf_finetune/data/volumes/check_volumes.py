"""Checks of a case's volumes before anything is computed from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.preprocessing.orientation import axes_between, turn, turned_affine
from hsf_finetune.data.volumes.affines import corner_shift_mm, format_affine, grid_noise_mm
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.labels.classes import LABEL_VALUES, LabelMap
from hsf_finetune.system.console import count_of, format_size
from hsf_finetune.system.errors import DataError

_AFFINE_NOISE_MM = 1e-2
"""Largest shift of a corner voxel that still counts as rounding noise."""

_LARGEST = float(np.finfo(np.float32).max)


def check_image(volume: Volume) -> None:
    """Refuses an image that holds NaN, infinity or numbers beyond single precision, or one value.

    Raises:
        DataError: naming the file and how many voxels are affected.
    """
    array = volume.array
    is_real = array.dtype.kind == "f"
    if is_real and (bad := int(array.size - np.count_nonzero(np.isfinite(array)))):
        raise DataError(
            "the image holds NaN or infinite voxels",
            file=volume.ref,
            found=f"{bad} of {count_of(array.size, 'voxel')}",
            expected="finite numbers",
            fix="repair the image",
        )
    if is_real and array.size and max(abs(float(array.min())), abs(float(array.max()))) > _LARGEST:
        large = int(np.count_nonzero(np.abs(array) > _LARGEST))
        raise DataError(
            "the image holds numbers that are too large for single precision, in which networks "
            "compute",
            file=volume.ref,
            found=f"{large} of {count_of(array.size, 'voxel')}, up to {np.abs(array).max():.3g}",
            expected=f"numbers up to {_LARGEST:.3g}",
            fix="set them to the value of the scan's background (they often mark its outside)",
        )
    if array.size == 0 or array.min() == array.max():
        raise DataError(
            "the image is constant, so there is nothing to segment",
            file=volume.ref,
            found=f"{array.size} voxels of value {array.flat[0] if array.size else 'none'}",
            fix="repair the image",
        )


def to_whole_numbers(volume: Volume) -> npt.NDArray[np.int64]:
    """The voxels of a label volume as integers, (X, Y, Z).

    Files that store scaled integers may miss whole numbers by half a step; so do files of
    an integer data type that were written from floating-point voxels.

    Raises:
        DataError: some voxels are not whole numbers, or are beyond 64 bits with a sign.
    """
    array = volume.array
    if np.issubdtype(array.dtype, np.integer):
        _refuse_beyond_int64(volume, array)
        return np.asarray(array, dtype=np.int64)
    rounded = np.round(array)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        wrong = ~(np.abs(array - rounded) < max(1e-4, min(0.51 * volume.step, 0.1)))
    if wrong.any():
        examples = ", ".join(f"{v:g}" for v in np.unique(array[wrong])[:5])
        raise DataError(
            "the label volume holds values that are not whole numbers",
            file=volume.ref,
            found=f"{count_of(int(wrong.sum()), 'voxel')}, such as {examples}",
            expected="whole numbers",
            fix="resample labels with nearest-neighbour interpolation, not linearly",
        )
    _refuse_beyond_int64(volume, rounded)
    return rounded.astype(np.int64)


def _refuse_beyond_int64(volume: Volume, array: npt.NDArray[Any]) -> None:
    least, most = LABEL_VALUES.start, LABEL_VALUES.stop - 1
    if array.size == 0 or (int(array.min()) >= least and int(array.max()) <= most):
        return
    # 2^63 is a number of every floating-point type, and 2^63 - 1 is not.
    beyond = array[(array < least) | (array >= array.dtype.type(LABEL_VALUES.stop))]
    raise DataError(
        "the label volume holds values that are too large for a label",
        file=volume.ref,
        found=f"{count_of(beyond.size, 'voxel')}, such as "
        + ", ".join(str(int(value)) for value in np.unique(beyond)[:5]),
        expected=f"whole numbers from {least} to {most}",
        fix="write other numbers in their place, such as 255 for voxels to ignore",
    )


def check_same_grid(first: Volume, other: Volume) -> None:
    """Refuses two volumes of one case that do not lie on the same grid.

    Raises:
        DataError: shapes differ, or a corner lies somewhere else in space.
    """
    if error := _grid_error(first, other):
        raise error


def on_grid_of(first: Volume, label: Volume) -> Volume:
    """The label of an image, its axes turned to the image's where both lie on the same voxels.

    A program that converts DICOM may reverse or exchange axes, which the affine tells.

    Raises:
        DataError: they do not lie on the same voxels.
    """
    error = _grid_error(first, label)
    between = axes_between(label.affine, first.affine) if error else None
    if between is None:
        turned = label
    else:
        array = turn(label.array, between)
        affine = turned_affine(label.affine, between, label.array.shape)
        turned = replace(label, array=array, affine=affine, stored_shape=array.shape, header=None)
    if error and _grid_error(first, turned):
        raise error
    return turned


def _grid_error(first: Volume, other: Volume) -> DataError | None:
    if first.array.shape != other.array.shape:
        return DataError(
            "two volumes of one case differ in shape",
            file=other.ref,
            found=other.array.shape,
            expected=f"{first.array.shape}, as in {first.ref}",
            fix="resample one of them to the other's grid (labels: nearest neighbour)",
        )
    shift = corner_shift_mm(first.affine, other.affine, first.array.shape)
    if shift <= grid_noise_mm(first.affine, _AFFINE_NOISE_MM, 0.02):
        return None
    return DataError(
        "two volumes of one case lie on different grids in space",
        file=other.ref,
        found=f"{format_affine(other.affine)}\n(a corner is {format_size(shift)} mm off)",
        expected=f"{format_affine(first.affine)}\nas in {first.ref}",
        fix="resample one of them to the other's grid, or correct the wrong header",
    )


def to_label_rows(label: Volume, protocol: LabelMap) -> npt.NDArray[np.uint8]:
    """The label rows (see `LabelMap`) of a label volume, (X, Y, Z).

    Raises:
        DataError: values are not whole numbers, or the map does not list them.
    """
    raw = to_whole_numbers(label)
    if unknown := protocol.count_unknown(raw):
        first = sorted(unknown.items())[:8]
        lines = "; ".join(f"{value}: 0" for value, _ in first)
        raise DataError(
            "the label volume holds values that the dataset's YAML does not list",
            file=label.ref,
            found=", ".join(f"{value} ({count_of(n, 'voxel')})" for value, n in first),
            expected=", ".join(map(str, protocol.values)),
            fix=f"add them to labels: (and name them in labels_names:); to count them as "
            f"background: {lines}",
        )
    return protocol.rows(raw)
