"""Mixup and CutMix: what each voxel and its label become, and what a loss of mixed labels is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.data.augment.mixing import (
    BatchMixing,
    Mixture,
    cut_and_paste,
    draw_mixture,
    mix_images,
)

SHAPE = (6, 5, 4)
PROTOCOLS = torch.tensor(
    [  # rows of three cases: fine, merged (its last row is padding), and open in places
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
        [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0]],
    ]
).bool()


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(3, 2, *SHAPE, generator=generator)
    label = torch.randint(0, 3, (3, *SHAPE), generator=generator, dtype=torch.uint8)
    return image, label, PROTOCOLS


def sets_of(label: Tensor, allowed: Tensor) -> Tensor:
    """The allowed set of each voxel, (B, X, Y, Z, classes)."""
    return allowed[torch.arange(len(label))[:, None, None, None], label.long()]


@pytest.mark.parametrize("shift", [1, 2])
def test_cutmix_pastes_voxels_and_what_their_labels_mean(shift: int) -> None:
    box = (slice(1, 4), slice(0, 5), slice(2, 3))
    image, label, allowed = batch()
    mixed = cut_and_paste(image, label, allowed, Mixture(shift, box=box))
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[box] = True
    other = [(k - shift) % 3 for k in range(3)]
    assert torch.equal(mixed[0], torch.where(inside, image[other], image))
    sets = sets_of(label, allowed)
    expected = torch.where(inside[..., None], sets[other], sets)
    assert torch.equal(sets_of(*mixed[1:]), expected)
    for case in mixed[2]:
        used = case[case.any(dim=1)].tolist()
        assert len(used) == len({tuple(row) for row in used})


def test_mixup_is_the_weighted_mean_of_images_alone() -> None:
    image, label, allowed = batch()
    settings = AugmentationSettings(mixup_p=1.0, mixup_alpha=1.0)
    mixed, *labels, mixture = BatchMixing(settings)(image, label, allowed, 5)
    assert mixture is not None
    assert 0 < mixture.share < 1
    other = image.roll(mixture.shift, 0)
    torch.testing.assert_close(mixed, mixture.share * image + (1 - mixture.share) * other)
    assert torch.equal(labels[0], label)
    assert torch.equal(labels[1], allowed)
    assert torch.equal(mix_images(image, Mixture(1)), image)


def test_draws_follow_the_settings_and_the_seed() -> None:
    settings = AugmentationSettings(mixup_p=0.3, mixup_alpha=0.4, cutmix_p=0.6)
    drawn = [draw_mixture(settings, 4, [20, 20, 20], seed) for seed in range(3000)]
    shares = np.array([one.share for one in drawn if one.share < 1])
    assert len(shares) / 3000 == pytest.approx(0.3, abs=0.03)
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.02)  # of Beta(a, a)
    boxes = [one.box for one in drawn if one.box is not None]
    assert len(boxes) / 3000 == pytest.approx(0.6, abs=0.03)
    sides = np.array([[side.stop - side.start for side in box] for box in boxes])
    assert sides.min() >= 0
    assert sides.max() <= 20
    assert {one.shift for one in drawn} == {1, 2, 3}
    assert draw_mixture(settings, 4, [20, 20, 20], 7) == drawn[7]


def test_a_case_alone_is_not_mixed() -> None:
    settings = AugmentationSettings(mixup_p=1.0, cutmix_p=1.0)
    assert draw_mixture(settings, 1, [*SHAPE], 0) == Mixture(0)


def test_another_pipeline_refuses_to_mix() -> None:
    with pytest.raises(ValueError, match="pipeline 'none' mixes no volumes"):
        AugmentationSettings(pipeline="none", mixup_p=0.1)
