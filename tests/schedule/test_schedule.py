"""The schedule's arithmetic."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.errors import ConfigError
from hsf_finetune.schedule.schedule import RateCurve, Schedule
from hsf_finetune.schedule.strategies import block_names, gradual_unfreezing, plan
from hsf_finetune.settings import FinetuningSettings, LightningSettings, ModelSettings


@dataclass(frozen=True)
class Named:
    name: str


@dataclass(frozen=True)
class Blocks:
    encoders: tuple[Named, ...] = (Named("encoder1"), Named("encoder2"), Named("encoder3"))
    bottleneck: Named = Named("bottleneck")
    decoders: tuple[Named, ...] = (Named("decoder3"), Named("decoder2"), Named("decoder1"))
    head: Named = Named("head")


def planned(epochs: int | None = None, **finetuning: object) -> Schedule:
    return plan(
        Blocks(),
        FinetuningSettings.model_validate(finetuning),
        ModelSettings(lr=1e-3),
        LightningSettings(max_epochs=epochs),
    )


def test_decoder_thaws_from_the_head_inwards() -> None:
    thaw = gradual_unfreezing(Blocks(), "decoder", -1, 4)
    assert thaw == {"head": 0, "decoder1": 4, "decoder2": 8, "decoder3": 12}


def test_encoder_thaws_from_the_input_inwards() -> None:
    thaw = gradual_unfreezing(Blocks(), "encoder", 2, 1)
    assert thaw == {"head": 0, "encoder1": 1, "encoder2": 2}


def test_both_goes_down_the_decoder_and_up_the_encoder() -> None:
    thaw = gradual_unfreezing(Blocks(), "both", -1, 2)
    assert list(thaw) == [
        "head",
        *("decoder1", "decoder2", "decoder3"),
        "bottleneck",
        *("encoder3", "encoder2", "encoder1"),
    ]
    assert list(thaw.values()) == list(range(0, 16, 2))


@pytest.mark.parametrize("mode", ["encoder", "decoder", "both"])
@pytest.mark.parametrize("frequency", [1, 2, 5])
def test_depth_zero_is_the_head_alone(mode: str, frequency: int) -> None:
    assert gradual_unfreezing(Blocks(), mode, 0, frequency) == {"head": 0}


def test_too_deep_names_the_blocks_there_are() -> None:
    with pytest.raises(ConfigError, match="decoder1, decoder2, decoder3"):
        gradual_unfreezing(Blocks(), "decoder", 4, 1)


@given(
    mode=st.sampled_from(["encoder", "decoder", "both"]),
    depth=st.integers(-1, 3),
    frequency=st.integers(1, 9),
)
def test_default_length_gives_every_block_its_epochs(mode: str, depth: int, frequency: int) -> None:
    schedule = planned(mode=mode, depth=depth, unfreeze_frequency=frequency)
    assert all(stage.end_epoch - stage.first_epoch == frequency for stage in schedule.stages)
    assert schedule.max_epochs - schedule.last_thaw == frequency
    seen: frozenset[str] = frozenset()
    for epoch in range(schedule.max_epochs):
        now = schedule.trainable(epoch)
        assert seen <= now, "a block froze again"
        assert "head" in now
        seen = now
    assert set(schedule.never_thawed) == set(block_names(Blocks())) - seen


@given(
    steps_per_epoch=st.integers(1, 7),
    frequency=st.integers(1, 4),
    warmup=st.floats(0, 1),
    epochs=st.integers(1, 20),
)
def test_rate_is_positive_exactly_while_a_block_trains(
    steps_per_epoch: int, frequency: int, warmup: float, epochs: int
) -> None:
    schedule = planned(epochs=epochs, mode="both", unfreeze_frequency=frequency, warmup=warmup)
    for epoch in range(epochs):
        trainable = schedule.trainable(epoch)
        for step in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
            for block in schedule.blocks:
                rate = schedule.rate(block, step, steps_per_epoch)
                assert (rate > 0) == (block in trainable)
                assert rate <= 1e-3


def test_a_late_block_warms_up_from_a_small_rate() -> None:
    schedule = planned(mode="decoder", unfreeze_frequency=10, warmup=0.2)
    thaw = schedule.thaw_epoch["decoder3"] * 10
    rates = [schedule.rate("decoder3", step, 10) for step in range(thaw, thaw + 30)]
    assert rates[0] < 0.1 * 1e-3
    assert max(rates) == pytest.approx(1e-3, rel=1e-6)


def test_curve_ends_where_it_is_told_to() -> None:
    assert RateCurve(warmup=0, final=0.1).factor(100, 100) == pytest.approx(0.1)


def test_full_trains_everything_from_the_start() -> None:
    schedule = planned(strategy="full", head_lr_factor=10.0)
    assert schedule.trainable(0) == set(schedule.blocks)
    assert schedule.peak_rate["head"] == pytest.approx(1e-2)
    assert schedule.never_thawed == ()
