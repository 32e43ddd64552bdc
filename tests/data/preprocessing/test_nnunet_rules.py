"""nnU-Net's rules, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.config.settings.preprocessing_settings import MinMaxIntensity, ZScoreIntensity
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.nnunet_rules import (
    ct_intensity,
    median_spacing,
    patch_of_scans,
    preprocessing_by_nnunet,
)
from tests.data.writing import AFFINE, SHAPE, blobs, case, nifti, scan


def test_the_voxel_size_is_the_median() -> None:
    spacings = np.array([[0.8, 1.0, 1.2], [0.9, 1.0, 1.2], [1.0, 1.1, 1.4]])
    sizes = np.full((3, 3), 100.0)
    assert median_spacing(spacings, sizes) == pytest.approx((0.9, 1.0, 1.2))


@pytest.mark.parametrize(
    ("thickness", "slices", "expected"),
    [
        ([3.0, 5.0, 5.0, 5.0, 6.0], 20, 3.8),
        ([0.5, 0.5, 5.0, 5.0, 6.0], 20, 1.00001),
        ([3.0, 5.0, 5.0, 5.0, 6.0], 200, 5.0),
        ([1.0, 2.9, 2.9, 2.9, 3.0], 20, 2.9),
    ],
    ids=["thick and few", "not below the others", "thick and many", "hardly thick"],
)
def test_thick_slices(thickness: list[float], slices: int, expected: float) -> None:
    spacings = np.array([[1.0, 0.9, t] for t in thickness])
    sizes = np.array([[200.0, 210.0, slices] for _ in thickness])
    assert median_spacing(spacings, sizes) == pytest.approx((1.0, 0.9, expected))


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [case(tmp_path, f"c{n}", seed=n) for n in range(3)]


def test_mri_is_z_scored_over_the_scan(cases: list[Case]) -> None:
    found = preprocessing_by_nnunet(cases, None)
    assert found.intensity == (ZScoreIntensity(),)
    assert found.spacing_mm == pytest.approx((0.8, 0.9, 1.1))
    assert (found.resampling, found.crop, found.intensity_first) == ("nnunet", "nonzero", True)
    assert (found.padding, found.padded_size) == ("symmetric", "window")
    assert found.patch_vox == found.window_vox == SHAPE


def test_scans_that_are_mostly_empty_are_z_scored_inside(cases: list[Case], tmp_path: Path) -> None:
    for n in range(3):
        image = scan(n)
        image[:3], image[:, -1:] = 0, 0
        nifti(tmp_path / f"c{n}.nii.gz", image)
    assert preprocessing_by_nnunet(cases, None).intensity == (
        ZScoreIntensity(mask="nonzero_filled"),
    )


def test_ct_has_the_statistics_of_what_is_labelled(cases: list[Case]) -> None:
    inside = np.concatenate([scan(n)[blobs() > 0] for n in range(3)]).astype(np.float64)
    (found,) = preprocessing_by_nnunet(cases, ["CT"]).intensity
    assert isinstance(found, ZScoreIntensity)
    assert (found.mean, found.std) == pytest.approx((inside.mean(), inside.std()))
    assert found.clip == pytest.approx(tuple(np.percentile(inside, [0.5, 99.5])))
    assert preprocessing_by_nnunet(cases, ["rescale_to_0_1"]).intensity == (MinMaxIntensity(),)
    two = [replace(c, images=(c.images[0], c.images[0])) for c in cases]
    ct, mri = preprocessing_by_nnunet(two, ["CT", "PET"]).intensity
    assert (ct, mri) == (found, ZScoreIntensity())


def test_the_order_of_stored_axes_does_not_matter(tmp_path: Path) -> None:
    turned = case(tmp_path, "a")
    affine = AFFINE[:, [2, 0, 1, 3]]
    for ref, array in ((turned.images[0], scan()), (turned.label, blobs())):
        nifti(ref.path, array.transpose(2, 0, 1), affine)
    assert preprocessing_by_nnunet([turned], None).spacing_mm == pytest.approx((0.8, 0.9, 1.1))
    assert SHAPE == (10, 9, 8)


def test_large_and_small_cases_count_equally_for_the_statistics_of_ct() -> None:
    small, large = np.array([0.0, 100.0], np.float32), np.full(1000, 40.0, np.float32)
    found = ct_intensity([small, large])
    assert found.mean == pytest.approx(45)
    assert found.std == pytest.approx(np.std([0, 100, 40, 40]))
    assert found.clip == pytest.approx((0, 100))


@pytest.mark.parametrize(
    ("spacing", "median", "expected"),
    [
        ((1.0, 1.0, 1.0), (40, 56, 40), (40, 56, 40)),
        ((1.0, 1.0, 1.0), (300, 400, 300), (112, 152, 120)),
        ((0.5, 0.5, 5.0), (500, 400, 20), (404, 320, 16)),
        ((1.0, 1.0, 1.0), (500, 20, 20), (256, 20, 20)),
    ],
    ids=["small", "large", "thick slices", "long"],
)
def test_patches_have_the_shape_of_the_median_scan(
    spacing: tuple[float, float, float], median: tuple[int, int, int], expected: tuple[int, ...]
) -> None:
    found = patch_of_scans(spacing, [median] * 3)
    assert np.prod(found) <= 128**3
    assert found == expected
