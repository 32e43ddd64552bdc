"""Numbers that scans of one kind share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hsf_finetune.data.typical_scans import SMOOTHNESS, measure_scan
from hsf_finetune.data.volumes.read_volume import VolumeRef, make_volume


@pytest.mark.parametrize("size", [24, 100], ids=["all planes", "some planes"])
@pytest.mark.parametrize("sigma", [0.0, 0.6, 2.0])
def test_smoothness_is_the_correlation_of_neighbours(size: int, sigma: float) -> None:
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.normal(size=(size, size, size)), sigma, mode="wrap")
    # Dark at both ends, as where a head ends in air: those planes vary less.
    image *= np.sin(np.linspace(0.1, np.pi - 0.1, size))[:, None, None]
    planes = [np.moveaxis(image, axis, 0) for axis in range(3)]
    expected = [np.corrcoef(p[1:].ravel(), p[:-1].ravel())[0, 1] for p in planes]
    found = measure_scan(make_volume(image.astype(np.float32), np.eye(4), VolumeRef(Path("a.nii"))))
    assert found[SMOOTHNESS.name] == pytest.approx(np.mean(expected), abs=0.02)
