"""Checks of volumes: what would give wrong results is refused with a clear message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from hsf_finetune.data.volumes.check_volumes import (
    check_image,
    check_same_grid,
    on_grid_of,
    to_label_rows,
    to_whole_numbers,
)
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.system.errors import DataError
from tests.data.volumes.test_read_volume import moved, volume
from tests.data.writing import AFFINE, PROTOCOL, SHAPE, blobs, dicom, hdf5, nifti, scan


def labels(path: Path, array: Any) -> Any:
    return to_whole_numbers(volume(nifti(path, array)))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIL"])
def test_a_label_along_other_axes_than_its_dicom_series_is_turned(
    axes: str, tmp_path: Path
) -> None:
    array = blobs().astype(np.int16)
    image = read_volume(VolumeRef(dicom(tmp_path / "series", array)))
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(axes))
    stored = nib.Nifti1Image(image.array.astype(np.int16), image.affine).as_reoriented(turn)
    nib.save(stored, tmp_path / "label.nii.gz")
    label = read_volume(VolumeRef(tmp_path / "label.nii.gz"))
    turned = on_grid_of(image, label)
    check_same_grid(image, turned)
    np.testing.assert_array_equal(turned.array, image.array)
    elsewhere = replace(label, affine=label.affine + 5 * np.eye(4, k=3))
    with pytest.raises(DataError, match=r"different grids|differ in shape"):
        on_grid_of(image, elsewhere)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_with_voxels_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    array = scan()
    array[1, 2, 3:5] = value
    with pytest.raises(DataError, match="NaN or infinite") as caught:
        check_image(volume(nifti(tmp_path / "a.nii.gz", array)))
    assert f"2 of {array.size} voxels" in str(caught.value)


@pytest.mark.parametrize("value", [1e300, -1e39, np.finfo(np.float64).max])
def test_images_beyond_single_precision_are_refused(tmp_path: Path, value: float) -> None:
    array = scan().astype(np.float64)
    array[:2] = value
    with pytest.raises(DataError, match="too large for single precision") as caught:
        check_image(volume(nifti(tmp_path / "a.nii.gz", array)))
    assert f"144 of {array.size} voxels, up to {abs(value):.3g}" in str(caught.value)
    check_image(volume(nifti(tmp_path / "b.nii.gz", scan() * np.float32(1e36))))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
def test_constant_images_are_refused(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(DataError, match="constant"):
        check_image(volume(nifti(tmp_path / "a.nii.gz", np.full(SHAPE, 7, dtype))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, ">i2", np.float32, np.float64])
def test_whole_numbers_of_any_type_are_labels(tmp_path: Path, dtype: Any) -> None:
    found = labels(tmp_path / "a.nii.gz", blobs().astype(dtype))
    assert found.dtype == np.int64
    assert np.array_equal(found, blobs())


def test_scaled_and_boolean_labels_are_whole_numbers(tmp_path: Path) -> None:
    image = nib.Nifti1Image(blobs().astype(np.float32) * 3, AFFINE)
    image.set_data_dtype(np.uint8)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(to_whole_numbers(volume(tmp_path / "a.nii.gz")), blobs() * 3)
    path = hdf5(tmp_path / "a.h5", {"main": blobs() > 0}, {"spacing_mm": [1, 1, 1]})
    assert np.array_equal(to_whole_numbers(volume(path)), blobs() > 0)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_interpolated_labels_are_refused(tmp_path: Path, value: float) -> None:
    array = blobs().astype(np.float32)
    array[0, 0, :3] = value
    with pytest.raises(DataError, match="not whole numbers") as caught:
        labels(tmp_path / "a.nii.gz", array)
    assert f"3 voxels, such as {value:g}" in str(caught.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (
            np.array([[[2**64 - 1, 2**63, 2**63 - 1, 5]]], np.uint64),
            f"2 voxels, such as {2**63}, {2**64 - 1}",
        ),
        (np.array([[[1e20, -1e19, 3e9]]]), f"2 voxels, such as -{10**19}, {10**20}"),
        (np.array([[[2.0**63, -(2.0**63)]]]), f"1 voxel, such as {2**63}"),
        (np.array([[[2.0**63, 1]]], np.float32), f"1 voxel, such as {2**63}"),
    ],
)
def test_values_beyond_64_bits_are_refused_by_name(
    tmp_path: Path, array: npt.NDArray[Any], said: str
) -> None:
    path = hdf5(tmp_path / "a.h5", {"main": array}, {"spacing_mm": [1, 1, 1]})
    with pytest.raises(DataError, match="too large for a label") as caught:
        to_whole_numbers(volume(path))
    assert f"found:    {said}\n" in str(caught.value)


def test_image_and_label_share_a_grid_but_for_rounding(tmp_path: Path) -> None:
    first = volume(nifti(tmp_path / "a.nii.gz"))
    check_same_grid(first, volume(nifti(tmp_path / "b.nii.gz", blobs(), moved(0.005))))
    with pytest.raises(DataError, match=r"different grids[\s\S]*2 mm off"):
        check_same_grid(first, volume(nifti(tmp_path / "c.nii.gz", blobs(), moved(2))))
    with pytest.raises(DataError, match=r"differ in shape[\s\S]*\(9, 9, 8\)[\s\S]*\(10, 9, 8\)"):
        check_same_grid(first, volume(nifti(tmp_path / "d.nii.gz", blobs()[1:])))


def test_unknown_values_are_counted_with_the_line_to_add(tmp_path: Path) -> None:
    array = blobs().astype(np.int16)
    array[0, 0, :3], array[1, 0, 0] = 9, -4
    path = nifti(tmp_path / "a_seg.nii.gz", array)
    with pytest.raises(DataError, match="does not list") as caught:
        to_label_rows(read_volume(VolumeRef(path)), PROTOCOL)
    message = str(caught.value)
    for expected in (str(path), "9 (3 voxels)", "-4 (1 voxel)", "0, 1, 2", "-4: 0; 9: 0"):
        assert expected in message
