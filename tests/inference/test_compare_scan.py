"""Scans that are unlike the training data get a remark, and those that are like it none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.typical_scans import (
    PIECES,
    Quantity,
    largest_piece,
    measure_scan,
    usual_ranges,
    volume_of,
)
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, make_volume
from hsf_finetune.inference.compare_scan import compare_result, compare_scan

SHAPE = (30, 36, 32)


def anatomy(seed: int, shape: tuple[int, int, int] = SHAPE, smooth_vox: float = 2.0) -> Any:
    """Bright tissue in darker surroundings, with a little noise."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=shape), smooth_vox)
    tissue = 300 * (field > np.quantile(field, 0.8)) + 100
    image = ndimage.gaussian_filter(tissue.astype(float), 0.7) + random.normal(0, 10, shape)
    return image.astype(np.float32)


def volume(array: Any, spacing_mm: float = 1.0) -> Volume:
    affine = np.diag([-spacing_mm, spacing_mm, spacing_mm, 1.0])
    return make_volume(array, affine, VolumeRef(Path("scan.nii.gz")))


def summary(count: int = 12) -> DataSummary:
    cases = [
        {**measure_scan(volume(anatomy(n))), PIECES.name: 1.0, volume_of("a").name: 900.0 + 10 * n}
        for n in range(count)
    ]
    return DataSummary(count, (1.0,) * 3, SHAPE, None, {}, usual_ranges(cases))


SEEN = summary()


def kinds(scan: Volume, seen: DataSummary = SEEN, target_spacing_mm: Any = None) -> list[str]:
    found = [*compare_scan(scan, seen, target_spacing_mm)]
    assert all(finding.found and finding.expected and finding.fix for finding in found)
    return [finding.kind for finding in found]


@pytest.mark.parametrize("seed", range(100, 110))
@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_scan_like_the_training_data_gets_none(seed: int, count: int) -> None:
    seen = replace(summary(count), cases=count)
    assert kinds(volume(anatomy(seed)), seen) == []
    assert kinds(volume(1000 + 7 * np.pad(anatomy(seed), 4)), seen) == []


@pytest.mark.parametrize("spacing_mm", [0.4, 0.5, 2.0])
def test_another_voxel_size_is_told(spacing_mm: float) -> None:
    image = ndimage.zoom(anatomy(100), 1 / spacing_mm, order=1)
    assert "scan/spacing" in kinds(volume(image, spacing_mm))
    (finding, *_) = compare_scan(volume(image, spacing_mm), SEEN, None)
    assert finding.found == " x ".join([f"{spacing_mm:g}"] * 3) + " mm"
    assert finding.expected == "1 x 1 x 1 mm"


def test_a_voxel_size_that_is_resampled_may_differ_more() -> None:
    image = volume(ndimage.zoom(anatomy(100), 1 / 0.7, order=1), 0.7)
    assert "scan/spacing" in kinds(image)
    assert "scan/spacing" not in kinds(image, SEEN, (1.0, 1.0, 1.0))


def test_a_scan_of_head_size_is_told() -> None:
    assert "scan/size" in kinds(volume(anatomy(1, (120, 150, 130))))


@pytest.mark.parametrize("kind", ["normal", "uniform", "rayleigh"])
def test_noise_is_told(kind: str) -> None:
    image = getattr(np.random.default_rng(0), kind)(size=SHAPE).astype(np.float32)
    assert "scan/noise" in kinds(volume(image))


def test_blurring_is_told() -> None:
    assert "scan/noise" in kinds(volume(ndimage.gaussian_filter(anatomy(100), 3)))


def test_inverted_contrast_is_told() -> None:
    assert "scan/contrast" in kinds(volume(500 - anatomy(100)))


def result(foreground: Any, seen: DataSummary | None = SEEN) -> list[str]:
    scan = volume(anatomy(100))
    volumes = {"a": float(foreground.sum())}
    return [finding.kind for finding in compare_result(scan, foreground, volumes, seen)]


def test_results_that_labels_do_not_have_are_told() -> None:
    foreground = np.zeros(SHAPE, dtype=np.bool_)
    assert result(foreground) == ["result/empty"]
    assert result(foreground, None) == ["result/empty"]
    foreground[5:15, 5:15, 5:15] = True
    assert result(foreground) == []
    assert result(foreground, None) == []
    pieces = foreground & (np.indices(SHAPE).sum(axis=0) % 4 < 2) & (np.indices(SHAPE)[0] % 3 > 0)
    assert "result/pieces" in result(pieces)
    foreground[:25, :25, :25] = True
    assert result(foreground) == ["result/volume"]


def test_a_class_that_training_cases_lack_may_be_missing() -> None:
    quantity = volume_of("a")
    assert quantity.is_unusual(0, (900, 1000), 40)
    assert not quantity.is_unusual(0, (0, 1000), 40)
    assert quantity.is_unusual(3000, (0, 1000), 40)


def test_few_cases_say_less_of_what_is_usual() -> None:
    quantity = Quantity("x", 1.0)
    assert quantity.is_unusual(2.5, (0, 1), 100)
    assert not quantity.is_unusual(2.5, (0, 1), 1)


def test_a_summary_of_version_0_1_0_knows_medians() -> None:
    old = DataSummary(12, (1.0, 1.0, 1.0), SHAPE, None, {})
    assert DataSummary.from_dict({**old.to_dict(), "usual": {}}) == old
    plain = old.to_dict()
    del plain["usual"]
    assert DataSummary.from_dict(plain) == old
    assert kinds(volume(anatomy(100)), old) == []
    assert kinds(volume(ndimage.zoom(anatomy(100), 2, order=1), 0.5), old) == ["scan/spacing"]
    assert kinds(volume(anatomy(1, (120, 150, 130))), old) == ["scan/size"]


def test_pieces_are_counted_with_corners() -> None:
    mask = np.zeros((8, 8, 8), dtype=np.bool_)
    assert largest_piece(mask) == 1
    mask[2, 2, 2] = mask[3, 3, 3] = True
    assert largest_piece(mask) == 1
    mask[6, 6, 6] = mask[6, 6, 7] = True
    assert largest_piece(mask) == 0.5


def test_a_remark_on_a_small_volume_keeps_its_digits() -> None:
    usual = {volume_of("a").name: (1e-12, 1.1e-12), PIECES.name: (0.9, 1.0)}
    scan = volume(anatomy(0), 8e-6)
    seen = replace(SEEN, usual=usual)
    found = [*compare_result(scan, np.ones(SHAPE, bool), {"a": 9e-12}, seen)]
    assert [one.found for one in found] == ["volume a mm3 9e-12"]
    assert [one.expected for one in found] == ["volume a mm3 1e-12 to 1.1e-12"]
