"""Geometry of HDF5 volumes: from the file, else from the YAML, never made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.volumes.affines import corner_shift_mm, format_affine
from hsf_finetune.data.volumes.hdf5_datasets import open_dataset
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_shape, read_volume
from hsf_finetune.system.errors import DataError
from tests.data.writing import AFFINE, SHAPE, hdf5, scan, settings

ROWS = tuple(map(tuple, AFFINE.tolist()))


def affine_of(path: Path, attributes: dict[str, Any], **ref: Any) -> Any:
    given = VolumeRef(hdf5(path / "a.h5", {"main": scan()}, attributes), **ref)
    shape, affine = read_shape(given)
    assert shape == SHAPE
    assert np.array_equal(affine, read_volume(given).affine)
    return affine


def test_the_attributes_say_where_voxels_lie(tmp_path: Path) -> None:
    assert np.array_equal(affine_of(tmp_path, {"affine": AFFINE}), AFFINE)
    sizes = affine_of(tmp_path, {"spacing_mm": (0.5, 1, 2)})
    assert np.array_equal(sizes, np.diag([0.5, 1, 2, 1]))


def test_attributes_of_the_file_count_too_but_less(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", {"main": scan(), "other": scan()})
    with h5py.File(path, "a") as file:
        file.attrs["spacing_mm"] = (1, 2, 3)
        file["other"].attrs["spacing_mm"] = (4, 5, 6)
    assert read_volume(VolumeRef(path, "main")).spacing_mm == (1, 2, 3)
    assert read_volume(VolumeRef(path, "other")).spacing_mm == (4, 5, 6)


def test_the_yaml_stands_in_where_the_file_says_nothing(tmp_path: Path) -> None:
    assert np.array_equal(affine_of(tmp_path, {}, affine=ROWS), AFFINE)
    sizes = affine_of(tmp_path, {}, spacing_mm=(0.5, 1, 2))
    assert np.array_equal(sizes, np.diag([0.5, 1, 2, 1]))
    both = affine_of(tmp_path, {"affine": AFFINE}, spacing_mm=(3, 3, 3), affine=None)
    assert np.array_equal(both, AFFINE)
    stored = affine_of(tmp_path, {"spacing_mm": (2, 2, 2)}, spacing_mm=(3, 3, 3))
    assert np.array_equal(stored, np.diag([2, 2, 2, 1]))


def test_the_yaml_may_add_directions_to_a_voxel_size_but_not_contradict_it(tmp_path: Path) -> None:
    found = affine_of(tmp_path, {"spacing_mm": (0.8, 0.9, 1.1)}, affine=ROWS)
    assert np.array_equal(found, AFFINE)
    with pytest.raises(DataError, match="contradicts the file's voxel size"):
        affine_of(tmp_path, {"spacing_mm": (0.8, 0.9, 2)}, affine=ROWS)


@pytest.mark.parametrize("attributes", [{}, {"element_size_um": (800, 800, 800)}, {"unit": "mm"}])
def test_without_geometry_the_line_to_add_is_named(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="does not say how large") as caught:
        affine_of(tmp_path, attributes)
    assert "spacing_mm: [0.8, 0.8, 0.8]" in str(caught.value)
    assert all(name in str(caught.value) for name in attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {"affine": AFFINE[:3]},
        {"affine": AFFINE.T},
        {"affine": np.zeros((4, 4))},
        {"affine": np.full((4, 4), np.nan)},
        {"affine": np.diag([1.0, 1, 0, 1])},
        {"affine": "RAS"},
        {"spacing_mm": (1, 1)},
        {"spacing_mm": (1, 1, 0)},
        {"spacing_mm": (1, 1, -1)},
        {"spacing_mm": (1, 1, np.nan)},
        {"spacing_mm": (1, 1, np.inf)},
        {"spacing_mm": "0.8 x 0.8 x 0.8"},
        {"spacing_mm": 0.8},
    ],
)
def test_malformed_geometry_is_refused(tmp_path: Path, attributes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"affine does not place|not three positive numbers"):
        affine_of(tmp_path, attributes)


@pytest.mark.parametrize("given", [{"spacing_mm": [0.5, 1, 2]}, {"affine": AFFINE.tolist()}])
def test_the_dataset_passes_its_geometry_on(tmp_path: Path, given: dict[str, Any]) -> None:
    hdf5(tmp_path / "a.h5", {"image": scan(), "label": scan()})
    pattern = {"mri": "*.h5", "mri_key": "image", "label_key": "label"}
    (case,) = discover(settings(tmp_path, {"t2": pattern}, **given)).cases
    for ref in (*case.images, case.label):
        expected = (0.5, 1, 2) if "spacing_mm" in given else (0.8, 0.9, 1.1)
        assert np.allclose(read_volume(ref).spacing_mm, expected)


def test_the_key_is_the_one_named_or_the_only_one(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", {"deep/main": scan()})
    for key in (None, "deep/main", "/deep/main", "/deep/main/"):
        with open_dataset(path, key) as node:
            assert node.name == "/deep/main"
    with h5py.File(path, "a") as file:
        file["alias"] = h5py.SoftLink("/deep/main")
        file["other"] = scan()
    with open_dataset(path, "alias") as node:
        assert np.array_equal(node[()], scan())
    for key in (None, "deep", "nothing"):
        with (
            pytest.raises(DataError, match=r"deep/main, other[\s\S]*key:"),
            open_dataset(path, key),
        ):
            pass


def test_the_shift_of_a_corner_grows_with_the_volume() -> None:
    turned = AFFINE.copy()
    turned[0, 0] *= 1.01
    assert corner_shift_mm(AFFINE, turned, (11, 2, 2)) == pytest.approx(0.08)
    assert corner_shift_mm(AFFINE, turned, (101, 2, 2)) == pytest.approx(0.8)


def test_an_affine_of_small_voxels_keeps_its_digits() -> None:
    assert format_affine(np.diag([0.8, 1, 1.2, 1])).split()[:2] == ["0.800", "0.000"]
    assert format_affine(np.diag([8e-6, 8e-6, 3e-5, 1])).split()[0] == "0.00000800"
    assert "nan" in format_affine(np.full((4, 4), np.nan))
