"""DICOM folders: one series as a volume, and what is no volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from hsf_finetune.data.volumes.dicom_series import is_dicom_folder, series_files
from hsf_finetune.data.volumes.read_volume import (
    VolumeRef,
    file_stamp,
    holds_volume,
    read_shape,
    read_volume,
    stem,
)
from hsf_finetune.system.errors import DataError
from tests.conftest import oblique_affine
from tests.data.writing import SHAPE, dicom, scan


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return dicom(tmp_path / "t2.cor", scan().astype(np.int16), oblique_affine())


def test_a_series_is_sorted_by_place(series: Path) -> None:
    read = read_volume(VolumeRef(series))
    assert np.array_equal(read.array, scan().astype(np.int16))
    assert np.allclose(read.affine, oblique_affine(), rtol=0, atol=1e-7)
    assert read_shape(VolumeRef(series))[0] == SHAPE
    assert [path.name for path in series_files(series, None)] == [
        f"T2cor_{number:03d}.dcm" for number in range(8, 0, -1)
    ]
    assert holds_volume(series)
    assert not is_dicom_folder(series.parent)
    assert stem(series) == "t2.cor"


def test_a_changed_slice_changes_the_stamp(series: Path) -> None:
    before = file_stamp(series)
    first = sorted(series.iterdir())[0]
    first.write_bytes(first.read_bytes() + bytes(2))
    assert file_stamp(series) != before


def test_rescaled_values_are_read(series: Path) -> None:
    change(
        series, lambda image, number: image.update({"RescaleSlope": 0.5, "RescaleIntercept": -7})
    )
    read = read_volume(VolumeRef(series))
    assert np.array_equal(read.array, 0.5 * scan().astype(np.int16) - 7)


def test_several_series_are_listed_and_chosen_by_key(series: Path) -> None:
    dicom(series, scan(1).astype(np.int16), description="localizer")
    with pytest.raises(
        DataError, match=r"several DICOM series[\s\S]*'localizer', 8 files[\s\S]*--key"
    ):
        read_volume(VolumeRef(series))
    chosen = read_volume(VolumeRef(series, "localizer"))
    assert np.array_equal(chosen.array, scan(1).astype(np.int16))
    uid = str(pydicom.dcmread(series / "T2cor_001.dcm").SeriesInstanceUID)
    assert np.array_equal(read_volume(VolumeRef(series, uid)).array, scan().astype(np.int16))
    with pytest.raises(DataError, match=r"no DICOM series 'T1'[\s\S]*T2 cor"):
        read_volume(VolumeRef(series, "T1"))


def change(series: Path, what: Callable[[Any, int], object]) -> None:
    for number, path in enumerate(sorted(series.iterdir())):
        image = pydicom.dcmread(path)
        what(image, number)
        image.save_as(path)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (lambda image, n: setattr(image, "PixelSpacing", [1 + n, 1]), "differ in size"),
        (
            lambda image, n: setattr(
                image, "ImageOrientationPatient", [1, 0, 0, 0, n % 2, 1 - n % 2]
            ),
            "differ in size",
        ),
        (
            lambda image, n: setattr(image, "ImagePositionPatient", [0, 0, n // 2]),
            "in one place",
        ),
        (lambda image, n: delattr(image, "ImagePositionPatient"), "where it lies"),
        (lambda image, n: setattr(image, "Modality", "SEG"), "several|no DICOM series"),
    ],
)
def test_what_is_no_volume_is_refused(
    series: Path, what: Callable[[Any, int], object], found: str
) -> None:
    change(series, what)
    with pytest.raises(DataError, match=found):
        read_volume(VolumeRef(series))


def test_a_missing_slice_is_noticed(series: Path) -> None:
    (series / "T2cor_004.dcm").unlink()
    with pytest.raises(DataError, match="uneven distances, so some may be missing"):
        read_volume(VolumeRef(series))


def test_a_single_file_says_what_to_give(series: Path) -> None:
    with pytest.raises(DataError, match="give the folder of the DICOM series"):
        read_volume(VolumeRef(series / "T2cor_001.dcm"))
