"""Resampling: nothing is added or moved, and nnU-Net's rules are nnU-Net's."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Spacing
from scipy import ndimage

from hsf_finetune.config.settings.preprocessing_settings import Resampling
from hsf_finetune.data.preprocessing.resampling import Resampler, Triple
from tests.data.writing import scan

KINDS = get_args(Resampling)
FINER, COARSER, THICK = (1.0, 1.0, 1.0), (2.0, 1.5, 3.0), (1.0, 1.0, 5.0)


def resampler(kind: Resampling, shape: Triple, old: Any, new: Any) -> Resampler:
    return Resampler.to_spacing(kind, shape, old, new)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [COARSER, (0.5, 0.7, 0.6), THICK])
def test_a_ramp_stays_a_ramp_and_labels_stay_in_place(kind: Resampling, new: Any) -> None:
    shape = (24, 21, 30)
    change = resampler(kind, shape, FINER, new)
    ramp = torch.from_numpy(np.indices(shape)[0].astype(np.float32))
    inner = (slice(4, -4) if new[0] < 2 else slice(2, -2),)
    found = change.image(ramp)[inner]
    sizes = change.shapes
    places = (np.arange(sizes[1][0]) + 0.5) * sizes[0][0] / sizes[1][0] - 0.5
    if kind.startswith("monai"):
        places = np.arange(sizes[1][0]) * new[0]
    assert np.allclose(found[:, 5, 3], places[inner], atol=0.02)
    rows = (ramp > 11.5).to(torch.uint8) * 2
    labels = change.labels(rows)
    assert labels.dtype == torch.uint8
    assert labels.unique().tolist() == [0, 2]
    assert abs(float((labels == 2).float().mean()) - 0.5) < 0.06


@pytest.mark.parametrize("kind", KINDS)
def test_one_grid_changes_nothing(kind: Resampling) -> None:
    change = resampler(kind, (10, 9, 8), THICK, THICK)
    image, rows = torch.from_numpy(scan()), torch.ones(10, 9, 8, dtype=torch.uint8)
    assert change.image(image) is image
    assert change.labels(rows) is rows
    assert change.scores_back(image[None]).data_ptr() == image.data_ptr()


def test_stripes_finer_than_a_voxel_become_grey_and_not_wider_stripes() -> None:
    stripes = torch.zeros(36, 8, 8)
    stripes[::2] = 1.0
    smooth, plain = (
        resampler(kind, (36, 8, 8), FINER, (4.0, 1.0, 1.0)).image(stripes)
        for kind in ("linear", "plain")
    )
    assert float((smooth - 0.5).abs().max()) < 0.1
    coarse = [resampler(k, (36, 8, 8), FINER, (3.0, 1.0, 1.0)) for k in ("linear", "plain")]
    smooth, plain = (one.image(stripes) for one in coarse)
    assert float((smooth - 0.5).abs().max()) < 0.3 < 0.49 < float((plain - 0.5).abs().max())


def test_finer_grids_are_not_smoothed() -> None:
    image = torch.from_numpy(scan())
    linear, plain = (resampler(k, (10, 9, 8), FINER, (0.5, 0.5, 0.5)) for k in ("linear", "plain"))
    assert torch.equal(linear.image(image), plain.image(image))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [COARSER, (0.5, 0.7, 0.6), THICK])
def test_scores_come_back_to_the_first_grid(kind: Resampling, new: Any) -> None:
    shape = (24, 21, 30)
    change = resampler(kind, shape, FINER, new)
    where = np.indices(shape) - np.array([12, 10, 15]).reshape(3, 1, 1, 1)
    ball = torch.from_numpy((where**2).sum(0) < 8**2).to(torch.uint8)
    inside = change.labels(ball)
    scores = torch.nn.functional.one_hot(inside.long(), 2).movedim(-1, 0).float()
    back = change.scores_back(scores)
    assert back.shape == (2, *shape)
    found = back.argmax(0) == 1
    overlap = 2 * float((found & (ball == 1)).sum()) / float(found.sum() + ball.sum())
    assert overlap > (0.8 if new == THICK else 0.9)


def by_slices(image: Any, shape: Triple, order: int) -> Any:
    """What nnU-Net does to thick slices: scikit-image's resize of each, then the nearest slice."""
    slices = []
    for z in range(image.shape[2]):
        plane = image[:, :, z].astype(np.float64)
        ratios = [n / m for n, m in zip(shape, plane.shape, strict=False)]
        made = ndimage.zoom(plane, ratios, order=order, mode="nearest", grid_mode=True)
        slices.append(np.clip(made, plane.min(), plane.max()))
    places = (np.arange(shape[2]) + 0.5) * image.shape[2] / shape[2] - 0.5
    nearest = np.rint(places).clip(0, image.shape[2] - 1).astype(int)
    return np.stack([slices[n] for n in nearest], axis=2)


def test_thick_slices_are_resampled_one_by_one() -> None:
    image = scan(shape=(12, 14, 6))
    change = resampler("nnunet", image.shape, (0.5, 0.5, 3.0), (0.75, 0.6, 1.3))
    expected = by_slices(image, change.shapes[1], order=3)
    # A slice is clipped to the range of its own.
    found = change.image(torch.from_numpy(image))
    assert np.allclose(found, expected, atol=1e-3)
    assert all((found[..., n] == found[..., n + 1]).all() for n in (0,))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.9), (0.24, 1.25, 1.25)])
def test_volumes_without_one_thick_axis_are_resampled_at_once(spacing: Any) -> None:
    image = scan(shape=(12, 14, 6))
    change = resampler("nnunet", image.shape, spacing, (1.0, 1.0, 1.0))
    ratios = [b / a for a, b in zip(*change.shapes, strict=True)]
    wide = image.astype(np.float64)
    expected = ndimage.zoom(wide, ratios, order=3, mode="nearest", grid_mode=True)
    found = change.image(torch.from_numpy(image))
    assert np.allclose(found, expected.clip(wide.min(), wide.max()), atol=1e-3)


@pytest.mark.parametrize("new", [COARSER, (0.5, 0.7, 0.6), (1.0, 1.0, 1.0)])
def test_monais_way_is_that_of_its_spacing_and_its_inverse(new: Any) -> None:
    old = (0.9, 1.0, 1.3)
    volume = MetaTensor(torch.from_numpy(scan())[None], affine=torch.diag(torch.tensor([*old, 1])))
    change = resampler("monai", (10, 9, 8), old, new)
    linear, nearest = (Spacing(new, mode=m, padding_mode="border") for m in ("bilinear", "nearest"))
    expected = linear(volume)
    assert expected.shape[1:] == change.shapes[1]
    assert torch.allclose(change.image(volume[0].as_tensor()), expected[0], atol=1e-2)
    assert torch.allclose(
        change.scores_back(expected.as_tensor()), linear.inverse(expected), atol=1e-2
    )
    rows = (volume > 100).as_tensor().to(torch.uint8)
    same = change.labels(rows[0]) == nearest((volume > 100).float())[0]
    assert float(same.float().mean()) > 0.97


def test_two_coarse_axes_that_are_wanted_alike_are_no_slices() -> None:
    """nnU-Net compares the wanted voxel sizes, not those that whole voxels lead to."""
    image = torch.rand(10, 11, 12)
    made = Resampler.to_spacing("nnunet", (10, 11, 12), (1.0, 1.0, 1.0), (1.25, 1.25, 0.24))
    cubes = Resampler("nnunet", made.shapes, ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)))
    assert made.shapes[1] == (8, 9, 50)
    assert torch.equal(made.image(image), cubes.image(image))
