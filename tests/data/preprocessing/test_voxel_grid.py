"""To the network's grid and back: labels return exactly, resampling moves nothing."""

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

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.data.preprocessing.orientation import turned_affine
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid, last_region
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef
from hsf_finetune.system.errors import DataError
from tests.data.writing import AFFINE, SHAPE, scan

REF = VolumeRef(Path("x.nii.gz"))
DIRECTIONS = [
    np.diag([*signs, 1])[:, [*axes, 3]]
    for axes in itertools.permutations(range(3))
    for signs in itertools.product([1.0, -1.0], repeat=3)
]


def volume(array: Any, affine: Any) -> Volume:
    return Volume(array, np.asarray(affine, dtype=np.float64), array.shape, REF)


def at(*spacing_mm: float) -> Preprocessing:
    return Preprocessing(spacing_mm=spacing_mm)


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


def network_affine(grid: VoxelGrid) -> Any:
    """Where the voxels of the reoriented (not resampled) volume lie."""
    return turned_affine(grid.affine, grid.axes, grid.file_shape)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_labels_come_back_exactly_from_every_orientation(direction: Any) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    grid = VoxelGrid.from_volume(volume(rows, AFFINE @ direction))
    inside = grid.label_to_network(rows)
    assert tuple(inside.shape) == grid.shape
    assert torch.equal(grid.resampler.image(grid.turned(rows, np.float32)), inside.float())
    assert np.array_equal(grid.classes_to_file(one_hot(inside)), rows)


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
    grid = VoxelGrid.from_volume(volume(rows, affine))
    inside = grid.label_to_network(rows)
    assert np.array_equal(grid.classes_to_file(one_hot(inside)), rows)
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
    grid = VoxelGrid.from_volume(volume(scan(shape=shape), direction))
    assert grid.shape == SHAPE
    assert np.allclose(network_affine(grid)[:3, :3], np.eye(3))


@given(st.sampled_from(DIRECTIONS), st.tuples(*[st.floats(0.6, 1.6)] * 3))
@settings(max_examples=25, deadline=None)
def test_a_big_blob_survives_resampling_both_ways(
    direction: Any, sizes: tuple[float, float, float]
) -> None:
    rows = ball((24, 25, 26), (10, 12, 14), 9)
    affine = direction @ np.diag([*sizes, 1])
    grid = VoxelGrid.from_volume(volume(rows, affine), at(0.9, 1.0, 1.1))
    back = grid.classes_to_file(one_hot(grid.label_to_network(rows)))
    assert back.shape == grid.file_shape == rows.shape
    assert np.array_equal(grid.affine, affine)
    assert dice(back == 1, rows == 1) > 0.9
    shift = np.argwhere(back).mean(0) - np.argwhere(rows).mean(0)
    assert np.abs(shift).max() < 0.4


def test_the_target_voxel_size_is_in_ras_order_and_keeps_the_extent() -> None:
    left_posterior_inferior = np.array(
        [[0, 0, -2.0, 0], [-1, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1]]
    )
    grid = VoxelGrid.from_volume(
        volume(scan(shape=(10, 20, 8)), left_posterior_inferior), at(1, 2, 0.25)
    )
    assert grid.resampler.shapes[0] == (8, 10, 20)
    assert grid.shape == (16, 5, 40)
    assert grid.spacing_mm == (1, 2, 0.25)
    uneven = VoxelGrid.from_volume(
        volume(scan(shape=(10, 20, 8)), left_posterior_inferior), at(3, 3, 3)
    )
    extents = [n * s for n, s in zip(uneven.shape, uneven.spacing_mm, strict=True)]
    assert np.allclose(extents, [16, 10, 10])


def test_resampling_never_leaves_an_empty_axis() -> None:
    grid = VoxelGrid.from_volume(volume(scan(shape=(4, 4, 1)), np.eye(4)), at(10, 10, 10))
    assert grid.shape == (1, 1, 1)


def test_an_affine_without_one_axis_is_refused() -> None:
    with pytest.raises(DataError, match="empty axis"):
        VoxelGrid.from_volume(volume(scan(), np.diag([1.0, 0, 1, 1])))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_box_is_put_back_in_its_place(direction: Any) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    box = (slice(1, 4), slice(0, 6), slice(2, 7))
    grid = VoxelGrid.from_volume(volume(rows, AFFINE @ direction), box=box)
    scores = one_hot(grid.label_to_network(rows))
    expected = np.zeros_like(rows)
    expected[box] = rows[box]
    assert np.array_equal(grid.classes_to_file(scores), expected)
    probabilities = grid.probabilities_to_file(scores.float())
    assert np.array_equal(probabilities.argmax(dim=0), expected)
    assert torch.equal(probabilities.sum(dim=0), torch.ones(5, 6, 7))


def test_the_last_region_whose_probability_is_above_one_half_counts() -> None:
    logits = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(4, 5, 6, dtype=torch.uint8)
    for number, one in enumerate(logits, start=1):
        expected[one.sigmoid() > 0.5] = number
    found = last_region(torch.cat([torch.zeros(1, 4, 5, 6), logits]))
    assert torch.equal(found, expected)
