"""The schedule's arithmetic."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.schedule.stages import RateCurve, Schedule, ScheduleHistory, Stage
from tests.schedule.planning import planned

STRATEGIES = [
    {"strategy": "hsf", "mode": "both", "unfreeze_frequency": 2},
    {"strategy": "full", "llrd_decay": 0.8},
    {"strategy": "linear"},
    {"strategy": "gradual"},
    {"strategy": "progressive", "unfreeze_backbone_at_epoch": 3},
    {"strategy": "lpft", "linear_probe_epochs": 3},
    {"strategy": "encoder_first"},
]


@given(
    strategy=st.sampled_from(STRATEGIES),
    steps_per_epoch=st.integers(1, 7),
    warmup=st.floats(0, 1),
    epochs=st.integers(3, 20),
    shape=st.sampled_from(["cosine", "poly", "step", "plateau"]),
)
def test_rate_is_positive_exactly_while_a_block_trains(
    strategy: dict[str, object], steps_per_epoch: int, warmup: float, epochs: int, shape: str
) -> None:
    schedule = planned(epochs=epochs, warmup=warmup, lr_schedule=shape, **strategy)
    assert schedule.max_epochs <= epochs
    for epoch in range(schedule.max_epochs):
        trainable = schedule.trainable(epoch)
        for step in range(steps_per_epoch):
            for block in schedule.blocks:
                rate = schedule.rate(block, epoch, step, steps_per_epoch)
                assert (rate > 0) == (block in trainable)
                assert rate <= schedule.stage(epoch).rates.get(block, 0.0) * (1 + 1e-9)


@given(strategy=st.sampled_from(STRATEGIES), epochs=st.integers(3, 30))
def test_blocks_never_freeze_again(strategy: dict[str, object], epochs: int) -> None:
    schedule = planned(epochs=epochs, **strategy)
    seen: frozenset[str] = frozenset()
    for epoch in range(schedule.max_epochs):
        assert seen <= schedule.trainable(epoch)
        seen = schedule.trainable(epoch)
    assert set(schedule.never_unfrozen) == set(schedule.blocks) - seen


def test_a_late_block_warms_up_from_a_small_rate() -> None:
    schedule = planned(unfreeze_frequency=10, warmup=0.2)
    unfreeze = schedule.unfreeze_epoch["decoder3"]
    rates = [
        schedule.rate("decoder3", epoch, step, 10)
        for epoch in range(unfreeze, unfreeze + 3)
        for step in range(10)
    ]
    assert rates[0] < 0.1 * 1e-3
    assert max(rates) == pytest.approx(1e-3, rel=1e-6)


def test_a_block_goes_on_over_the_border_of_stages() -> None:
    schedule = planned(unfreeze_frequency=2, warmup=0.0)
    rates = [schedule.rate("head", epoch, 0, 1) for epoch in range(schedule.max_epochs)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0]


def test_a_stage_that_restarts_warms_everything_up_again() -> None:
    schedule = planned(strategy="lpft", epochs=20, linear_probe_epochs=10, warmup=0.5)
    before, after = (schedule.rate("head", epoch, 0, 4) for epoch in (9, 10))
    assert after < schedule.stages[1].rates["head"] / 5
    assert schedule.rate("head", 15, 0, 4) > 2 * max(before, after)


def test_a_plateau_ends_a_stage_and_changes_no_rate_before_it() -> None:
    schedule = planned(strategy="gradual", epochs=30)
    actual = schedule.with_history(ScheduleHistory(ended={0: 4}))
    assert actual.max_epochs == 24
    assert actual.first_epoch(1) == 4
    assert "decoder1" in actual.trainable(4)
    assert [actual.rate("head", e, 1, 3) for e in range(4)] == [
        schedule.rate("head", e, 1, 3) for e in range(4)
    ]
    assert [actual.rate("decoder1", 4 + e, 0, 3) for e in range(10)] == [
        schedule.rate("decoder1", 10 + e, 0, 3) for e in range(10)
    ]


def test_rates_that_restart_do_so_from_that_epoch_on() -> None:
    schedule = planned(strategy="full", epochs=20, warmup=0.25)
    restarted = schedule.with_history(ScheduleHistory(restart_epoch=12))
    assert restarted.rate("head", 11, 0, 1) == schedule.rate("head", 11, 0, 1)
    rates = [restarted.rate("head", epoch, 0, 1) for epoch in range(12, 20)]
    assert rates[0] == pytest.approx(1e-3 / 3)
    assert rates[2] == pytest.approx(1e-3)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_rates_may_be_ahead_of_the_epochs() -> None:
    schedule = planned(strategy="full", epochs=20)
    ahead = schedule.with_history(ScheduleHistory(rate_shift_epochs=5))
    assert ahead.rate("head", 3, 2, 4) == schedule.rate("head", 8, 2, 4)
    assert ahead.rate("head", 18, 2, 4) == pytest.approx(0.0, abs=1e-12)


def test_a_boost_is_brief() -> None:
    schedule = planned(
        strategy="staged",
        stages=[{"epochs": 6, "freeze_level": 0, "head_boost": 4.0, "head_boost_epochs": 2}],
    )
    plain = replace(schedule, stages=tuple(replace(s, boost=None) for s in schedule.stages))
    ratio = [schedule.rate("head", e, 0, 2) / plain.rate("head", e, 0, 2) for e in range(6)]
    assert ratio == pytest.approx([4, 4, 1, 1, 1, 1])
    assert schedule.rate("decoder1", 0, 0, 2) == plain.rate("decoder1", 0, 0, 2)


def test_curve_ends_where_it_is_told_to() -> None:
    assert RateCurve(warmup=0, final=0.1).factor(100, 100) == pytest.approx(0.1)
    assert RateCurve(warmup=0, final=0.1).factor(150, 100) == pytest.approx(0.1)


@pytest.mark.parametrize("drop", [1, 3])
def test_rates_of_steps_are_those_of_pytorch(drop: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, drop, 0.3)
    given = {"lr_schedule": "step", "lr_drop_epochs": drop, "lr_drop_factor": 0.3, "warmup": 0}
    schedule = planned(strategy="full", epochs=8, **given)
    for epoch in range(8):
        assert schedule.rate("head", epoch, 1, 2) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_polynomial_rates_are_nnunets() -> None:
    schedule = planned(strategy="full", epochs=20, lr_schedule="poly", warmup=0)
    for epoch in range(20):
        assert schedule.rate("head", epoch, 0, 7) == pytest.approx(1e-3 * (1 - epoch / 20) ** 0.9)


def test_a_plateau_lowers_the_rates_of_those_that_train() -> None:
    schedule = planned(unfreeze_frequency=4, lr_schedule="plateau", warmup=0, final_lr_factor=0.05)
    fallen = schedule.with_history(ScheduleHistory(drops=(2, 6)))
    rates = [fallen.rate("head", epoch, 0, 2) for epoch in range(8)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4, 5e-5, 5e-5])
    assert fallen.rate("decoder1", 4, 0, 2) == pytest.approx(1e-3)
    assert fallen.rate("decoder1", 6, 0, 2) == pytest.approx(1e-4)


def test_a_warmup_may_be_given_in_epochs() -> None:
    schedule = planned(unfreeze_frequency=5, warmup_epochs=2)
    for block in ("head", "decoder2"):
        first = schedule.unfreeze_epoch[block]
        rates = [schedule.rate(block, first + e, s, 3) for e in range(4) for s in range(3)]
        assert rates[:6] == pytest.approx([1e-3 * (k + 1) / 7 for k in range(6)])
        assert rates[6] == pytest.approx(1e-3)
        assert rates[7:] == sorted(rates[7:], reverse=True)


def test_epochs_after_the_end_belong_to_the_last_stage() -> None:
    schedule = Schedule("own", ("a",), (Stage({}, 2), Stage({"a": 1.0}, 3)))
    assert [schedule.stage_index(epoch) for epoch in (0, 1, 2, 4, 5, 99)] == [0, 0, 1, 1, 1, 1]
    assert schedule.unfreeze_epoch == {"a": 2}
