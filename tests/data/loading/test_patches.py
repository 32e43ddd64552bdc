"""Patches: inside the volume, and around labelled voxels as often as asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.data.loading.patches import choose_patch_corner

triples = st.tuples(*[st.integers(1, 14)] * 3)


@given(triples, triples, st.integers(0, 999))
def test_a_patch_lies_inside_and_shows_foreground_if_it_must(
    shape: tuple[int, int, int], patch: tuple[int, int, int], seed: int
) -> None:
    label = torch.zeros(shape, dtype=torch.uint8)
    spot = tuple(int(np.random.default_rng(seed).integers(n)) for n in shape)
    label[spot] = 2
    label[0, 0, 0] = 1 if spot != (0, 0, 0) else 2
    foreground, informative = torch.tensor([False, False, True]), torch.ones(3, dtype=torch.bool)
    corner = choose_patch_corner(label, patch, 1.0, foreground, informative, seed)
    for a, n, p in zip(corner, shape, patch, strict=True):
        assert 0 <= a <= max(n - p, 0)
    part = label[tuple(slice(a, a + p) for a, p in zip(corner, patch, strict=True))]
    assert (part == 2).any()
    assert part.shape == tuple(min(n, p) for n, p in zip(shape, patch, strict=True))


def test_patches_go_everywhere_when_they_need_not_show_foreground() -> None:
    label = torch.zeros(20, 20, 20, dtype=torch.uint8)
    label[10, 10, 10] = 1
    foreground, informative = torch.tensor([False, True]), torch.tensor([True, True])
    anywhere = {
        choose_patch_corner(label, (4, 4, 4), 0.0, foreground, informative, s) for s in range(300)
    }
    assert {a for a, _, _ in anywhere} == set(range(17))
    near = {
        choose_patch_corner(label, (4, 4, 4), 1.0, foreground, informative, s) for s in range(20)
    }
    assert near == {(8, 8, 8)}
    empty = {
        choose_patch_corner(label * 0, (4, 4, 4), 1.0, foreground, informative, s)
        for s in range(300)
    }
    assert empty == anywhere


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_in_sparse_annotation_every_patch_shows_annotated_voxels(share: float) -> None:
    # Row 2 is not annotated; one slice is, with a spot of foreground.
    label = torch.full((20, 20, 20), 2, dtype=torch.uint8)
    label[:, 13] = 0
    label[4, 13, 4] = 1
    foreground, informative = torch.tensor([False, True, False]), torch.tensor([True, True, False])
    starts = [
        choose_patch_corner(label, (4, 4, 4), share, foreground, informative, s) for s in range(100)
    ]
    for x, y, z in starts:
        part = label[x : x + 4, y : y + 4, z : z + 4]
        assert (part == (1 if share else 0)).any()
    assert len(set(starts)) == 1 if share else len(set(starts)) > 50
