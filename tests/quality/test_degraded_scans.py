"""Degraded copies: what they change, what they keep, and that a seed repeats them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef, make_volume
from hsf_finetune.quality.degraded_scans import KINDS, degrade
from tests.conftest import oblique_affine, tiny_case

SEED = 3


@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind: str) -> None:
    image, label = tiny_case(1)
    rows = (label / 10).astype(np.uint8)
    scan = make_volume(image, oblique_affine(), VolumeRef(Path("scan")))
    # The second channel is what the labels are, so that it must stay beside them.
    marks = make_volume(rows.astype(np.float32), oblique_affine(), VolumeRef(Path("marks")))
    (first, second), changed = degrade(kind, [scan, marks], rows, np.random.default_rng(SEED))
    (again, _), _ = degrade(kind, [scan, marks], rows, np.random.default_rng(SEED))
    np.testing.assert_array_equal(first.array, again.array)
    assert first.array.shape == second.array.shape == changed.shape
    assert np.isfinite(first.array).all()
    np.testing.assert_array_equal(first.affine, second.affine)
    assert set(np.unique(changed)) == {0, 1, 2}
    if kind not in ("crop", "thick slices"):
        np.testing.assert_array_equal(changed, rows)
        assert not np.allclose(first.array, (image - image.mean()) / image.std(), atol=1e-3)
        return
    # The centre of gravity of the labels stays where it was in space.
    centres = [
        affine[:3, :3] @ np.argwhere(one > 0).mean(0) + affine[:3, 3]
        for affine, one in ((oblique_affine(), rows), (first.affine, changed))
    ]
    assert changed.size < rows.size
    assert np.linalg.norm(centres[0] - centres[1]) < (1.0 if kind == "thick slices" else 3.0)
    if kind == "crop":
        assert (np.round(second.array) == changed).all()
