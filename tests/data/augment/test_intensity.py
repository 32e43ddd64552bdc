"""Intensity changes of a batch: what they change, and what they keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hsf_finetune.data.augment.batch_augmentation import BatchAugmentation, change_batch
from tests.closeness import assert_equal_up_to_rounding
from tests.data.augment.test_batch_augmentation import (
    ALLOWED,
    INTENSITY,
    batch,
    drawn,
    only,
    sampling_scale,
    seeded,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.mark.parametrize("event", INTENSITY)
def test_intensity_changes_the_image_only_and_stays_finite(event: str) -> None:
    image, label = batch(channels=2)
    after, rows = change_batch(image, label, drawn(only(event), channels=2))
    assert torch.equal(rows, label)
    assert torch.isfinite(after).all()
    assert not torch.equal(after, image)


def test_channels_change_on_their_own() -> None:
    image = batch()[0].expand(-1, 2, -1, -1, -1)
    after, _ = change_batch(image, batch()[1], drawn(only("gamma", "blur"), channels=2))
    assert not torch.allclose(after[:, 0], after[:, 1], atol=1e-2)


def test_contrast_keeps_mean_deviation_and_gamma_the_order() -> None:
    image = batch()[0] * 3 + 5
    after, _ = change_batch(image, batch()[1], drawn(only("gamma", "bias")))
    assert_equal_up_to_rounding(after.mean((2, 3, 4)), image.mean((2, 3, 4)))
    assert_equal_up_to_rounding(after.std((2, 3, 4)), image.std((2, 3, 4)))
    powered, _ = change_batch(image, batch()[1], drawn(only("gamma")))
    assert (powered.flatten()[image[0].flatten().argsort()].diff() >= 0).all()


def test_blur_and_low_resolution_keep_constants_and_lower_variance() -> None:
    image, label = batch()
    changes = drawn(only("blur", "lowres"))
    flat, _ = change_batch(torch.full_like(image, 2.5), label, changes)
    assert_equal_up_to_rounding(flat, torch.full_like(image, 2.5))
    assert (change_batch(image, label, changes)[0].std() < 0.9 * image.std()).item()


def test_blur_and_low_resolution_do_not_shift() -> None:
    image, label = batch()
    changes = drawn(only("blur", "lowres"))
    after, _ = change_batch(image, label, changes)
    mirrored, _ = change_batch(image.flip(2, 3, 4), label, changes)
    assert_equal_up_to_rounding(mirrored, after.flip(2, 3, 4), scale=sampling_scale(image))


def test_noise_has_the_drawn_deviation() -> None:
    image, label = batch()
    changes = replace(drawn(only("noise")), noise_std=torch.tensor([[0.1], [0.4]]))
    residue = change_batch(image, label, changes)[0] - image
    torch.testing.assert_close(
        residue.std((1, 2, 3, 4)), torch.tensor([0.1, 0.4]), rtol=0.05, atol=0
    )


def test_noise_follows_the_range_of_images_that_are_not_z_scored() -> None:
    image, label = batch(channels=2)
    settings = only("noise", noise_std=0.5)
    z_scored = BatchAugmentation(settings)(image, label, ALLOWED[:2], seeded())[0]
    scaled = BatchAugmentation(settings, measure_noise=True)
    found = scaled(image * 0.1 + 5, label, ALLOWED[:2], seeded())[0]
    ratio = (found - (image * 0.1 + 5)) / (z_scored - image)
    expected = 0.1 * image.std(dim=(2, 3, 4), keepdim=True)
    assert torch.allclose(ratio.median(), expected.mean(), rtol=0.02)


@pytest.mark.parametrize("event", INTENSITY)
def test_a_constant_image_gives_no_nan(event: str) -> None:
    image, label = torch.zeros(2, 1, 4, 4, 4), torch.ones(2, 4, 4, 4, dtype=torch.uint8)
    after, _ = change_batch(image, label, drawn(only(event)))
    assert torch.isfinite(after).all()
