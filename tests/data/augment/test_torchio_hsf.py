"""HSF's preset: a seed decides, shapes and label values stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hsf_finetune.data.augment.torchio_hsf import HsfPipeline
from tests.data.augment.test_batch_augmentation import ALLOWED, batch

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def volume() -> tuple[Tensor, Tensor]:
    image, label = batch(1, channels=2)
    label[:, 0] = 0
    return image[0], label[0]


def test_a_seed_decides_and_the_global_state_stays() -> None:
    image, label = volume()
    pipeline, state = HsfPipeline(), torch.get_rng_state()
    results = [pipeline(image, label, ALLOWED, (0.5, 0.5, 1.0), seed) for seed in range(12)]
    torch.rand(3)
    again = [HsfPipeline()(image, label, ALLOWED, (0.5, 0.5, 1.0), seed) for seed in range(12)]
    assert all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        for a, b in zip(results, again, strict=True)
    )
    assert len({r[0].sum().item() for r in results}) > 4
    torch.set_rng_state(state)
    pipeline(image, label, ALLOWED, (0.5, 0.5, 1.0), 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_shapes_dtypes_and_label_values_stay() -> None:
    image, label = volume()
    for seed in range(20):
        after, rows, _ = HsfPipeline()(image.bfloat16(), label, ALLOWED, (1.0, 1.0, 1.0), seed)
        assert (after.shape, after.dtype) == (image.shape, torch.bfloat16)
        assert (rows.shape, rows.dtype) == (label.shape, torch.uint8)
        assert set(rows.unique().tolist()) <= set(label.unique().tolist())


def test_flips_can_be_forbidden() -> None:
    image, label = volume()
    flipped = [
        torch.equal(HsfPipeline(flip)(image, label, ALLOWED, (1.0,) * 3, seed)[1], label.flip(0))
        for flip in (True, False)
        for seed in range(20)
    ]
    assert any(flipped[:20])
    assert not any(flipped[20:])
