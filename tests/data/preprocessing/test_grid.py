"""The way to the network's grid and back, normalisation, and labels as rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.orientations import inv_ornt_aff

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.grid import Grid, load_case, load_image, z_normalise
from hsf_finetune.data.volumes.checks import label_rows
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.system.errors import DataError
from tests.data.writing import AFFINE, PROTOCOL, SHAPE, blobs, nifti, scan

REF = VolumeRef(Path("x.nii.gz"))
DIRECTIONS = [
    np.diag([*signs, 1])[:, [*axes, 3]]
    for axes in itertools.permutations(range(3))
    for signs in itertools.product([1.0, -1.0], repeat=3)
]


def volume(array: Any, affine: Any) -> Volume:
    return Volume(array, np.asarray(affine, dtype=np.float64), array.shape, REF)


def one_hot(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(rows.long(), 3).movedim(-1, 0).float()


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> Any:
    where = np.indices(shape).reshape(3, -1).T - np.array(centre)
    return ((where**2).sum(1) < radius**2).reshape(shape).astype(np.uint8)


def dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def turned(degrees: tuple[float, float, float]) -> Any:
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [a for a in range(3) if a != axis]
        about = np.eye(4)
        about[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = about @ matrix
    return matrix


def network_affine(grid: Grid) -> Any:
    """Where the voxels of the reoriented (not resampled) volume lie."""
    return grid.affine @ inv_ornt_aff(grid.orientation, grid.file_shape)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_labels_come_back_exactly_from_every_orientation(direction: Any) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    grid = Grid.from_volume(volume(rows, AFFINE @ direction), None)
    inside = grid.label_in(rows)
    assert tuple(inside.shape) == grid.shape
    assert torch.equal(grid.image_in(rows), inside.float())
    assert np.array_equal(grid.classes_out(one_hot(inside)), rows)


@given(
    st.sampled_from(DIRECTIONS),
    st.tuples(*[st.floats(-44, 44)] * 3),
    st.tuples(*[st.floats(0.2, 4)] * 3),
    st.tuples(*[st.integers(1, 8)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_labels_come_back_exactly_from_oblique_grids(
    direction: Any,
    degrees: tuple[float, float, float],
    sizes: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> None:
    affine = turned(degrees) @ direction @ np.diag([*sizes, 1])
    rows = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    grid = Grid.from_volume(volume(rows, affine), None)
    inside = grid.label_in(rows)
    assert np.array_equal(grid.classes_out(one_hot(inside)), rows)
    # The network's grid holds the same voxels at the same places.
    marked = np.argwhere(inside.numpy() == 1)
    places = apply_affine(network_affine(grid), marked)
    expected = apply_affine(affine, np.argwhere(rows == 1))
    assert np.allclose(
        sorted(map(tuple, places.round(4))), sorted(map(tuple, expected.round(4))), atol=1e-3
    )
    assert np.allclose(sorted(grid.spacing_mm), sorted(sizes))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_networks_axes_run_right_anterior_superior(direction: Any) -> None:
    shape = tuple(int(n) for n in np.abs(np.linalg.inv(direction)[:3, :3]) @ SHAPE)
    grid = Grid.from_volume(volume(scan(shape=shape), direction), None)
    assert grid.shape == SHAPE
    assert np.allclose(network_affine(grid)[:3, :3], np.eye(3))


@given(st.sampled_from(DIRECTIONS), st.tuples(*[st.floats(0.6, 1.6)] * 3))
@settings(max_examples=25, deadline=None)
def test_a_big_blob_survives_resampling_both_ways(
    direction: Any, sizes: tuple[float, float, float]
) -> None:
    rows = ball((24, 25, 26), (10, 12, 14), 9)
    affine = direction @ np.diag([*sizes, 1])
    grid = Grid.from_volume(volume(rows, affine), [0.9, 1.0, 1.1])
    back = grid.classes_out(one_hot(grid.label_in(rows)))
    assert back.shape == grid.file_shape == rows.shape
    assert np.array_equal(grid.affine, affine)
    assert dice(back == 1, rows == 1) > 0.9
    shift = np.argwhere(back).mean(0) - np.argwhere(rows).mean(0)
    assert np.abs(shift).max() < 0.4


def test_the_target_voxel_size_is_in_ras_order_and_keeps_the_extent() -> None:
    left_posterior_inferior = np.array(
        [[0, 0, -2.0, 0], [-1, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1]]
    )
    grid = Grid.from_volume(volume(scan(shape=(10, 20, 8)), left_posterior_inferior), [1, 2, 0.25])
    assert grid.canonical_shape == (8, 10, 20)
    assert grid.shape == (16, 5, 40)
    assert grid.spacing_mm == (1, 2, 0.25)
    uneven = Grid.from_volume(volume(scan(shape=(10, 20, 8)), left_posterior_inferior), [3, 3, 3])
    extents = [n * s for n, s in zip(uneven.shape, uneven.spacing_mm, strict=True)]
    assert np.allclose(extents, [16, 10, 10])


def test_resampling_never_leaves_an_empty_axis() -> None:
    grid = Grid.from_volume(volume(scan(shape=(4, 4, 1)), np.eye(4)), [10, 10, 10])
    assert grid.shape == (1, 1, 1)


def test_an_affine_without_one_axis_is_refused() -> None:
    with pytest.raises(DataError, match="empty axis"):
        Grid.from_volume(volume(scan(), np.diag([1.0, 0, 1, 1])), None)


@given(st.floats(-1000, 1000), st.floats(0.01, 1000))
def test_z_normalisation_undoes_shift_and_scale(shift: float, scale: float) -> None:
    image = torch.from_numpy(scan())
    normal = z_normalise(image)
    assert normal.dtype == torch.float32
    assert abs(float(normal.double().mean())) < 1e-5
    assert float(normal.double().std()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(z_normalise(image.double() * scale + shift), normal, atol=1e-4)


def test_every_channel_is_normalised_on_the_first_ones_grid(tmp_path: Path) -> None:
    flip = AFFINE @ np.diag([-1, 1, 1, 1])
    refs = [VolumeRef(nifti(tmp_path / f"{n}.nii.gz", scan(n) * (n + 1), flip)) for n in range(2)]
    image, grid, first = load_image(refs, None)
    assert image.shape == (2, *SHAPE)
    assert grid.shape == first.array.shape
    for channel, seed in zip(image, (0, 1), strict=True):
        assert torch.allclose(
            channel, z_normalise(torch.from_numpy(scan(seed)[::-1].copy())), atol=1e-5
        )


def test_channels_and_label_on_other_grids_are_refused(tmp_path: Path) -> None:
    image = VolumeRef(nifti(tmp_path / "a.nii.gz"))
    label = VolumeRef(nifti(tmp_path / "b.nii.gz", blobs(), AFFINE @ np.diag([-1, 1, 1, 1])))
    with pytest.raises(DataError, match="different grids"):
        load_image([image, label], None)
    with pytest.raises(DataError, match="different grids"):
        load_case(Case("a", "a", "lab", (image,), label, PROTOCOL), None)


def test_a_case_is_its_image_and_its_label_rows(tmp_path: Path) -> None:
    image, label = nifti(tmp_path / "a.nii.gz"), nifti(tmp_path / "b.nii.gz", blobs()[..., None])
    case = Case("a", "a", "lab", (VolumeRef(image),), VolumeRef(label), PROTOCOL)
    sample = load_case(case, None)
    assert torch.equal(sample.label, torch.from_numpy(blobs()))
    assert torch.equal(sample.image[0], z_normalise(torch.from_numpy(scan())))
    assert np.allclose(sample.spacing_mm, (0.8, 0.9, 1.1))
    coarse = load_case(case, [1.6, 1.8, 2.2])
    assert coarse.image.shape == (1, 5, 4, 4)
    assert coarse.label.shape == (5, 4, 4)
    assert coarse.label.dtype == torch.uint8


def test_unknown_values_are_counted_with_the_line_to_add(tmp_path: Path) -> None:
    array = blobs().astype(np.int16)
    array[0, 0, :3], array[1, 0, 0] = 9, -4
    path = nifti(tmp_path / "a_seg.nii.gz", array)
    with pytest.raises(DataError, match="does not list") as caught:
        label_rows(read_volume(VolumeRef(path)), PROTOCOL)
    message = str(caught.value)
    for expected in (str(path), "9 (3 voxels)", "-4 (1 voxels)", "0, 1, 2", "-4: 0; 9: 0"):
        assert expected in message
