"""Losses over sets of classes."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses.dice import DiceCELoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor

from hsf_finetune.training.losses import (
    build_loss,
    dice_loss,
    focal_tversky_loss,
    overlap,
    set_cross_entropy,
)

SHAPE = (4, 5, 3)


def random_case(seed: int, classes: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *SHAPE, generator=generator, dtype=torch.float64) * 3
    rows = torch.randint(classes, (batch, *SHAPE), generator=generator, dtype=torch.uint8)
    return logits, rows, torch.eye(classes, dtype=torch.bool).expand(batch, -1, -1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6))
def test_on_single_classes_it_is_the_plain_dice_ce(seed: int, classes: int) -> None:
    logits, rows, allowed = random_case(seed, classes)
    plain = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    expected = plain(logits.float(), rows[:, None].float())
    torch.testing.assert_close(build_loss("dice_ce")(logits, rows, allowed), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6))
def test_on_single_classes_it_is_the_plain_tversky(seed: int, classes: int) -> None:
    logits, rows, allowed = random_case(seed, classes)
    plain = TverskyLoss(to_onehot_y=True, softmax=True, alpha=0.3, beta=0.7)
    expected = plain(logits.float(), rows[:, None].float())
    ours = focal_tversky_loss(overlap(logits, rows, allowed, True), gamma=1.0)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def merged_case() -> tuple[Tensor, Tensor, Tensor]:
    """Classes bg, A, B, C; the protocol draws {bg}, {A, B} and {C}."""
    allowed = torch.tensor([[[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]], dtype=torch.bool)
    rows = torch.randint(3, (1, *SHAPE), dtype=torch.uint8)
    compatible = torch.full((1, 4, *SHAPE), -40.0)
    share = torch.rand(SHAPE)
    compatible[0, 0][rows[0] == 0] = 0
    compatible[0, 1][rows[0] == 1] = share[rows[0] == 1].log()
    compatible[0, 2][rows[0] == 1] = (1 - share[rows[0] == 1]).log()
    compatible[0, 3][rows[0] == 2] = 0
    return compatible, rows, allowed


@pytest.mark.parametrize("name", ["dice_ce", "focal_tversky"])
def test_a_compatible_prediction_costs_nothing(name: str) -> None:
    torch.manual_seed(0)
    logits, rows, allowed = merged_case()
    assert float(build_loss(name)(logits, rows, allowed)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["dice_ce", "focal_tversky"])
def test_gradient_is_finite_at_zero_loss(name: str) -> None:
    logits, rows, allowed = merged_case()
    logits.requires_grad_(True)
    build_loss(name)(logits, rows, allowed).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("measure", [set_cross_entropy, None])
def test_a_statement_of_everything_costs_nothing(measure: Callable[..., Tensor] | None) -> None:
    logits = torch.randn(1, 3, *SHAPE)
    rows = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    allowed = torch.ones(1, 1, 3, dtype=torch.bool)
    loss = (
        measure(logits, rows, allowed)
        if measure
        else dice_loss(overlap(logits, rows, allowed, True))
    )
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_padding_rows_and_mixed_protocols_do_not_disturb_each_other() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 3, *SHAPE)
    fine = torch.eye(3, dtype=torch.bool)
    coarse = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.bool)
    rows = torch.stack([torch.randint(3, SHAPE), torch.randint(2, SHAPE)]).to(torch.uint8)
    loss = build_loss("dice_ce")
    together = loss(logits, rows, torch.stack([fine, coarse]))
    swapped = loss(logits.flip(0), rows.flip(0), torch.stack([coarse, fine]))
    torch.testing.assert_close(together, swapped)
    cross_entropy = set_cross_entropy(logits, rows, torch.stack([fine, coarse]))
    apart = [
        set_cross_entropy(logits[:1], rows[:1], fine[None]),
        set_cross_entropy(logits[1:], rows[1:], coarse[None, :2]),
    ]
    torch.testing.assert_close(cross_entropy, sum(apart) / 2)
