"""Losses over sets of classes: plain on single classes, exact on sets, finite everywhere."""

from __future__ import annotations

from operator import truediv
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses.dice import DiceCELoss, DiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor

from hsf_finetune.config.settings import ModelSettings
from hsf_finetune.training.label_row_sums import sum_label_rows
from hsf_finetune.training.losses import (
    LabelSetLoss,
    count_overlap,
    focal_tversky_loss,
    weights_in_order,
)
from tests.closeness import assert_equal_up_to_rounding

SHAPE = (4, 5, 3)
NAMES = ("dice_ce", "dice_focal", "dice", "ce", "focal", "tversky", "focal_tversky")
quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 100_000)
losses = st.builds(
    LabelSetLoss,
    st.sampled_from(NAMES),
    st.one_of(st.none(), st.just((0.5, 2.0, 1.0, 3.0))),
    st.booleans(),
)


class Drawn(NamedTuple):
    """Logits, label rows and allowed sets of a batch."""

    logits: Tensor
    rows: Tensor
    allowed: Tensor


def single(seed: int, classes: int, batch: int = 2) -> Drawn:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *SHAPE, generator=generator) * 3
    rows = torch.randint(classes, (batch, *SHAPE), generator=generator, dtype=torch.uint8)
    return Drawn(logits, rows, torch.eye(classes, dtype=torch.bool).expand(batch, -1, -1))


def mixed(seed: int, classes: int = 4, batch: int = 3) -> Drawn:
    """Every case in a random protocol: sets that overlap, ignored, unannotated and empty ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *SHAPE, generator=generator) * 3
    allowed = torch.rand(batch, 5, classes, generator=generator) < 0.45
    allowed[:, 0, 0] = True
    counts = torch.randint(1, 6, (batch,), generator=generator)
    rows = torch.zeros(batch, *SHAPE, dtype=torch.uint8)
    for case in range(batch):
        empty = ~allowed[case].any(dim=1)
        allowed[case, empty] = True
        allowed[case, int(counts[case]) :] = False
        rows[case] = torch.randint(int(counts[case]), SHAPE, generator=generator)
    return Drawn(logits, rows, allowed)


def compatible(drawn: Drawn, seed: int) -> Tensor:
    """Logits that leave every voxel to its allowed set, divided at random inside it."""
    generator = torch.Generator().manual_seed(seed + 1)
    batch = torch.arange(len(drawn.rows))[:, None, None, None]
    inside = drawn.allowed[batch, drawn.rows.long()].movedim(-1, 1)
    return torch.where(
        inside, torch.randn(drawn.logits.shape, generator=generator) * 3, torch.tensor(-300.0)
    )


# ------------------------------------------------------------------- single classes
@quick
@given(seed=seeds, classes=st.integers(2, 6), weighted=st.booleans(), batch_dice=st.booleans())
def test_on_single_classes_it_is_monais_dice_ce(
    seed: int, classes: int, weighted: bool, batch_dice: bool
) -> None:
    drawn = single(seed, classes)
    # With one foreground class MONAI's Dice takes no weight.
    weights = torch.rand(classes) + 0.1 if weighted and classes > 2 else None
    plain = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, weight=weights, batch=batch_dice
    )
    ours = LabelSetLoss("dice_ce", None if weights is None else weights.tolist(), batch_dice)
    assert_equal_up_to_rounding(ours(*drawn), plain(drawn.logits, drawn.rows[:, None].float()))


@quick
@given(seed=seeds, classes=st.integers(2, 6), batch_dice=st.booleans())
def test_on_single_classes_they_are_monais(seed: int, classes: int, batch_dice: bool) -> None:
    drawn = single(seed, classes)
    more = {"softmax": True, "to_onehot_y": True, "batch": batch_dice}
    dice = DiceLoss(include_background=False, **more)
    focal = FocalLoss(use_softmax=True, to_onehot_y=True)
    plain = {
        "dice": dice,
        "focal": focal,
        "dice_focal": lambda z, y: dice(z, y) + focal(z, y),
        "tversky": TverskyLoss(alpha=0.3, beta=0.7, **more),
        "ce": lambda z, y: torch.nn.functional.cross_entropy(z, y[:, 0].long()),
    }
    for name, reference in plain.items():
        ours = LabelSetLoss(name, batch_dice=batch_dice)(*drawn)
        expected = reference(drawn.logits, drawn.rows[:, None].float())
        assert_equal_up_to_rounding(ours, expected, scale=1)


@quick
@given(seed=seeds, classes=st.integers(2, 5))
def test_gradients_are_those_of_the_plain_loss(seed: int, classes: int) -> None:
    drawn = single(seed, classes)
    plain = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    ours, theirs = (drawn.logits.clone().requires_grad_() for _ in range(2))
    LabelSetLoss("dice_ce")(ours, drawn.rows, drawn.allowed).backward()
    plain(theirs, drawn.rows[:, None].float()).backward()
    assert_equal_up_to_rounding(ours.grad, theirs.grad)


# ------------------------------------------------------------------------------ sets
@quick
@given(seed=seeds, loss=losses)
def test_a_compatible_prediction_costs_nothing(seed: int, loss: LabelSetLoss) -> None:
    drawn = mixed(seed)
    cost = loss(compatible(drawn, seed), drawn.rows, drawn.allowed)
    assert_equal_up_to_rounding(cost, 0, precision=cost.dtype, scale=1)


@quick
@given(seed=seeds, loss=losses)
def test_how_probability_is_divided_inside_a_set_does_not_matter(
    seed: int, loss: LabelSetLoss
) -> None:
    # Classes 1 and 2 are never told apart by any of these protocols.
    drawn = mixed(seed)
    drawn.allowed[:, :, 1:3] = drawn.allowed[:, :, 1:3].any(dim=2, keepdim=True)
    p = drawn.logits.softmax(dim=1)
    share = torch.rand(p[:, 1].shape)
    together = p[:, 1] + p[:, 2]
    divided = torch.stack([p[:, 0], together * share, together * (1 - share), p[:, 3]], 1)
    if loss.class_weights is not None:
        loss = LabelSetLoss(loss.name, (0.5, 2.0, 2.0, 3.0), loss.batch_dice)
    assert_equal_up_to_rounding(
        loss(divided.log(), drawn.rows, drawn.allowed), loss(*drawn), scale=1
    )


@quick
@given(seed=seeds, loss=losses, at_zero=st.booleans(), scale=st.sampled_from([1, 100]))
def test_gradients_are_finite(seed: int, loss: LabelSetLoss, at_zero: bool, scale: int) -> None:
    drawn = mixed(seed)
    logits = (compatible(drawn, seed) if at_zero else drawn.logits * scale).requires_grad_()
    cost = loss(logits, drawn.rows, drawn.allowed)
    cost.backward()
    assert torch.isfinite(cost)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@quick
@given(seed=seeds, loss=losses)
def test_the_order_of_cases_does_not_matter(seed: int, loss: LabelSetLoss) -> None:
    drawn = mixed(seed)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    assert_equal_up_to_rounding(loss(*(part[order] for part in drawn)), loss(*drawn), scale=1)


@quick
@given(seed=seeds, loss=losses)
def test_a_statement_of_everything_costs_nothing_and_pulls_nowhere(
    seed: int, loss: LabelSetLoss
) -> None:
    drawn = mixed(seed)
    logits = drawn.logits.requires_grad_()
    everything = torch.ones(3, 1, 4, dtype=torch.bool)
    cost = loss(logits, torch.zeros_like(drawn.rows), everything)
    cost.backward()
    assert float(cost.detach()) == 0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0


def test_ignored_voxels_do_not_dilute_the_others() -> None:
    drawn = single(0, 3, batch=1)
    allowed = torch.cat([drawn.allowed, torch.ones(1, 1, 3, dtype=torch.bool)], dim=1)
    rows = drawn.rows.clone()
    rows[:, 2:] = 3
    for name in NAMES:
        loss = LabelSetLoss(name)
        known = Drawn(drawn.logits[:, :, :2], drawn.rows[:, :2], drawn.allowed)
        assert_equal_up_to_rounding(loss(drawn.logits, rows, allowed), loss(*known), scale=1)


def test_an_unannotated_class_may_be_predicted_on_background() -> None:
    drawn = single(1, 3, batch=1)
    rows = drawn.rows.clamp(max=1)
    unsure = torch.tensor([[[1, 0, 1], [0, 1, 0]]], dtype=torch.bool)
    sure = torch.tensor([[[1, 0, 0], [0, 1, 0]]], dtype=torch.bool)
    as_class_2 = torch.zeros(1, 3, *SHAPE)
    as_class_2[0, 2][rows[0] == 0] = 200
    as_class_2[0, 1][rows[0] == 1] = 200
    for name in NAMES:
        cost = LabelSetLoss(name)(as_class_2, rows, unsure)
        assert_equal_up_to_rounding(cost, 0, precision=cost.dtype, scale=1)
    assert float(LabelSetLoss("dice_ce")(as_class_2, rows, sure)) > 10
    assert float(LabelSetLoss("tversky")(as_class_2, rows, sure)) > 0.4


def test_a_voxel_of_a_larger_set_counts_for_no_smaller_one() -> None:
    # {A}, {A, B} and the background: an {A, B} voxel says nothing about A.
    allowed = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 1, 1]]], dtype=torch.bool)
    rows = torch.tensor([0, 1, 2], dtype=torch.uint8).view(1, 3, 1, 1)
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3]]).T.reshape(1, 3, 3, 1, 1)
    counts = count_overlap(
        sum_label_rows(p.log(), rows, allowed)[0], allowed, include_background=False
    )
    assert_equal_up_to_rounding(counts.inside, torch.tensor([[0.7, 0.6, 0.9 + 0.8]]))
    assert_equal_up_to_rounding(counts.missed, torch.tensor([[0.3, 0.4, 0.1 + 0.2]]))
    assert_equal_up_to_rounding(counts.outside, torch.tensor([[0.1 + 0.2, 0.2, 0.3]]))
    assert counts.weight.tolist() == [[0, 1, 1]]


def test_equal_sets_of_a_batch_are_pooled_and_others_are_not() -> None:
    drawn = single(3, 3)
    allowed = drawn.allowed.clone()
    allowed[1, 2] = torch.tensor([False, True, True])
    loss = LabelSetLoss("dice", batch_dice=True)(drawn.logits, drawn.rows, allowed)
    apart = count_overlap(sum_label_rows(drawn.logits, drawn.rows, allowed)[0], allowed, False)

    def dice(inside: Tensor, missed: Tensor, outside: Tensor) -> Tensor:
        return 2 * inside / (2 * inside + missed + outside)

    counts = (apart.inside, apart.missed, apart.outside)
    sets = [
        dice(*(c[0, 1] + c[1, 1] for c in counts)),
        dice(*(c[0, 2] for c in counts)),
        dice(*(c[1, 2] for c in counts)),
    ]
    assert_equal_up_to_rounding(loss, 1 - torch.stack(sets).mean(), scale=1)


def test_with_one_foreground_class_its_weight_multiplies_dice_and_weighs_cross_entropy() -> None:
    drawn = single(11, 2)
    weights = (1.0, 3.0)
    dice = LabelSetLoss("dice")(*drawn)
    assert_equal_up_to_rounding(LabelSetLoss("dice", weights)(*drawn), 3 * dice)
    plain_ce = torch.nn.functional.cross_entropy(
        drawn.logits, drawn.rows.long(), weight=torch.tensor(weights)
    )
    assert_equal_up_to_rounding(LabelSetLoss("ce", weights)(*drawn), plain_ce)
    both = LabelSetLoss("dice_ce", weights)(*drawn)
    assert_equal_up_to_rounding(both, 3 * dice + plain_ce)


def test_a_set_weighs_as_much_as_its_classes_on_average() -> None:
    allowed = torch.tensor([[[1, 0, 0], [0, 1, 1]]], dtype=torch.bool)
    rows = torch.tensor([0, 1], dtype=torch.uint8).view(1, 2, 1, 1)
    logits = torch.randn(1, 3, 2, 1, 1)
    q = [float(logits.softmax(1)[0, 0, 0]), float(logits.softmax(1)[0, 1:, 1].sum())]
    loss = LabelSetLoss("ce", (1.0, 2.0, 4.0))(logits, rows, allowed)
    expected = -(torch.tensor(q[0]).log() + 3 * torch.tensor(q[1]).log()) / 4
    assert_equal_up_to_rounding(loss, expected)
    assert weights_in_order({"B": 2.0}, ("background", "A", "B")) == (1.0, 1.0, 2.0)
    assert weights_in_order(None, ("background", "A")) is None


# ----------------------------------------------------------------- numerics, settings
@quick
@given(seed=seeds)
def test_the_written_gradient_is_the_numerical_one(seed: int) -> None:
    drawn = mixed(seed, batch=2)
    logits = drawn.logits[:, :, :2, :2, :1].double().requires_grad_()
    rows = drawn.rows[:, :2, :2, :1].contiguous()
    assert torch.autograd.gradcheck(lambda z: sum_label_rows(z, rows, drawn.allowed), (logits,))


def test_tversky_is_focal_tversky_without_focus() -> None:
    drawn = single(4, 4)
    counts = count_overlap(sum_label_rows(*drawn)[0], drawn.allowed, include_background=True)
    plain, focal = (truediv(*focal_tversky_loss(counts, gamma=gamma)) for gamma in (1, 0.75))
    assert float(LabelSetLoss("tversky")(*drawn)) == float(plain)
    assert float(focal) > float(plain)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_scored_in_float32_under_autocast(name: str) -> None:
    drawn = single(5, 4)
    half = drawn.logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LabelSetLoss(name)(half, drawn.rows, drawn.allowed)
    assert loss.dtype == torch.float32
    expected = LabelSetLoss(name)(half.float(), drawn.rows, drawn.allowed)
    assert_equal_up_to_rounding(loss, expected, scale=1)


def test_every_loss_of_the_settings_can_be_built() -> None:
    assert set(NAMES) == set(ModelSettings.model_fields["loss"].annotation.__args__)  # type: ignore[union-attr]
    for name in NAMES:
        assert torch.isfinite(LabelSetLoss(name)(*single(6, 3)))


# ------------------------------------------------------------------- label smoothing
@quick
@given(seed=seeds, classes=st.integers(2, 6), share=st.floats(0.01, 0.9), weighted=st.booleans())
def test_smoothing_on_single_classes_is_pytorchs(
    seed: int, classes: int, share: float, weighted: bool
) -> None:
    drawn = single(seed, classes)
    weights = torch.rand(classes) + 0.1 if weighted else None
    plain = torch.nn.CrossEntropyLoss(weights, label_smoothing=share)
    ours = LabelSetLoss("ce", weights.tolist() if weighted else None, label_smoothing=share)
    expected = plain(drawn.logits, drawn.rows.long())
    assert_equal_up_to_rounding(ours(*drawn), expected, scale=1)


@quick
@given(seed=seeds)
def test_smoothing_leaves_open_how_a_set_is_divided(seed: int) -> None:
    """Changing logits within each voxel's set, its total kept, changes nothing."""
    drawn = mixed(seed)
    log_p = drawn.logits.double().log_softmax(dim=1)
    batch = torch.arange(len(drawn.rows))[:, None, None, None]
    inside = drawn.allowed[batch, drawn.rows.long()].movedim(-1, 1)
    within = torch.where(inside, log_p, -torch.inf).logsumexp(dim=1, keepdim=True)
    even = torch.where(inside, within - inside.sum(dim=1, keepdim=True).log(), log_p)
    loss = LabelSetLoss("ce", label_smoothing=0.2)
    first, second = (loss(z, drawn.rows, drawn.allowed) for z in (log_p, even))
    torch.testing.assert_close(first, second)
    assert first > LabelSetLoss("ce")(log_p, drawn.rows, drawn.allowed) * 0.8 - 1e-9
