"""What each strategy trains, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hsf_finetune.schedule.stages import NORMS
from hsf_finetune.system.errors import ConfigError
from tests.schedule.planning import planned

EVERYTHING = planned(strategy="full").blocks


def unfreeze(**finetuning: object) -> dict[str, int]:
    return planned(**finetuning).unfreeze_epoch


# --------------------------------------------------------------------- hsf
def test_decoder_unfreezes_from_the_head_inwards() -> None:
    assert unfreeze(mode="decoder", unfreeze_frequency=4) == {
        "head": 0,
        "decoder1": 4,
        "decoder2": 8,
        "decoder3": 12,
    }


def test_encoder_unfreezes_from_the_input_inwards() -> None:
    found = unfreeze(mode="encoder", depth=2, unfreeze_frequency=1)
    assert found == {"head": 0, "encoder1": 1, "encoder2": 2}


def test_both_goes_down_the_decoder_and_up_the_encoder() -> None:
    found = unfreeze(mode="both", unfreeze_frequency=2)
    assert list(found) == [*reversed(EVERYTHING)]
    assert list(found.values()) == list(range(0, 16, 2))


@pytest.mark.parametrize("mode", ["encoder", "decoder", "both"])
@pytest.mark.parametrize("frequency", [1, 2, 5])
def test_depth_zero_is_the_head_alone(mode: str, frequency: int) -> None:
    assert unfreeze(mode=mode, depth=0, unfreeze_frequency=frequency) == {"head": 0}


def test_too_deep_names_the_blocks_there_are() -> None:
    with pytest.raises(ConfigError, match="decoder1, decoder2, decoder3"):
        planned(depth=4)


@given(
    mode=st.sampled_from(["encoder", "decoder", "both"]),
    depth=st.integers(-1, 3),
    frequency=st.integers(1, 9),
)
def test_default_length_gives_every_block_its_epochs(mode: str, depth: int, frequency: int) -> None:
    schedule = planned(mode=mode, depth=depth, unfreeze_frequency=frequency)
    assert all(stage.epochs == frequency for stage in schedule.stages)
    assert schedule.max_epochs == len(schedule.unfreeze_epoch) * frequency
    assert "head" in schedule.trainable(0)


# --------------------------------------------------------------------- others
def test_full_trains_everything_with_layer_wise_decay() -> None:
    schedule = planned(strategy="full", llrd_decay=0.5)
    assert schedule.trainable(0) == set(EVERYTHING)
    rates = [schedule.stages[0].rates[block] for block in reversed(EVERYTHING)]
    assert rates == pytest.approx([1e-3 * 0.5**k for k in range(len(EVERYTHING))])


def test_linear_is_the_head_until_a_plateau() -> None:
    (stage,) = planned(strategy="linear", linear_probe_epochs=7, gradual_patience=2).stages
    assert (set(stage.rates), stage.epochs, stage.patience_epochs) == ({"head"}, 7, 2)
    assert planned(strategy="linear", epochs=4).max_epochs == 4


def test_gradual_goes_from_plateau_to_plateau_with_the_best_weights() -> None:
    schedule = planned(strategy="gradual", gradual_patience=2, gradual_top_blocks=1, epochs=11)
    assert [set(s.rates) for s in schedule.stages] == [
        {"head"},
        {"head", "decoder1"},
        set(EVERYTHING),
    ]
    assert [s.epochs for s in schedule.stages] == [3, 3, 5]
    assert all(s.patience_epochs == 2 for s in schedule.stages)
    assert [s.carries_best for s in schedule.stages] == [False, True, True]
    with pytest.raises(ConfigError, match="three phases"):
        planned(strategy="gradual", epochs=2)


@pytest.mark.parametrize(
    ("frozen", "at", "expected"), [(True, -1, None), (False, -1, 0), (True, 5, 5), (True, 0, 0)]
)
def test_progressive_unfreezes_the_backbone_at_its_epoch(
    frozen: bool, at: int, expected: int | None
) -> None:
    found = planned(
        strategy="progressive", freeze_backbone=frozen, unfreeze_backbone_at_epoch=at, epochs=9
    )
    assert found.unfreeze_epoch["decoder3"] == 0
    assert {found.unfreeze_epoch.get(b) for b in ("encoder1", "bottleneck")} == {expected}
    assert found.max_epochs == 9


@pytest.mark.parametrize(
    ("epochs", "finetuning", "never", "needed"),
    [
        (8, {"unfreeze_frequency": 4}, ["decoder2", "decoder3"], 13),
        (3, {"unfreeze_frequency": 4}, ["decoder1", "decoder2", "decoder3"], 13),
        (2, {"mode": "both", "unfreeze_frequency": 1}, [*EVERYTHING[:5]][::-1], 8),
        (5, {"strategy": "progressive", "unfreeze_backbone_at_epoch": 5}, ["bottleneck"], 6),
        (4, {"strategy": "progressive", "unfreeze_backbone_at_epoch": 5}, ["encoder1"], 6),
        (
            4,
            {"strategy": "staged", "stages": [{"freeze_level": k, "epochs": 4} for k in (1, 0)]},
            ["encoder1"],
            8,
        ),
    ],
)
def test_blocks_that_max_epochs_keeps_frozen_are_named(
    epochs: int, finetuning: dict[str, object], never: list[str], needed: int
) -> None:
    schedule = planned(epochs=epochs, **finetuning)
    (remark,) = schedule.remarks
    assert f"lightning.max_epochs={epochs} " in remark
    assert all(name in remark for name in never)
    assert not any(name in remark for name in schedule.unfreeze_epoch)
    assert schedule.max_epochs == epochs
    whole = planned(epochs=needed, **finetuning)
    assert f"{needed} epochs or more" in remark
    assert whole.remarks == ()
    assert set(never) <= whole.unfreeze_epoch.keys()


def test_a_lost_stage_without_a_new_block_is_a_remark_too() -> None:
    two = [{"freeze_level": 0, "epochs": 4, "lr": lr} for lr in (1e-3, 1e-4)]
    (remark,) = planned(epochs=4, strategy="staged", stages=two).remarks
    assert "stage 1 of 2" in remark
    assert "3 epochs early" in planned(epochs=5, strategy="staged", stages=two).remarks[0]
    assert planned(epochs=8, strategy="staged", stages=two).remarks == ()


@pytest.mark.parametrize("strategy", ["full", "linear", "gradual", "lpft", "encoder_first"])
def test_strategies_that_fit_their_stages_into_max_epochs_lose_none(strategy: str) -> None:
    assert planned(epochs=6, strategy=strategy).remarks == ()


def test_lpft_probes_and_then_trains_everything_at_a_lower_rate() -> None:
    schedule = planned(strategy="lpft", linear_probe_epochs=10, lpft_lr_factor=0.1, epochs=8)
    probe, rest = schedule.stages
    assert (set(probe.rates), probe.epochs, rest.epochs) == ({"head"}, 4, 4)
    assert set(rest.rates) == set(EVERYTHING)
    assert list(rest.rates.values()) == pytest.approx([1e-4] * len(EVERYTHING))
    assert rest.restarts
    assert rest.carries_best
    assert schedule.remarks == ()


def test_encoder_first_trains_the_input_side_and_all_normalisation() -> None:
    (stage,) = planned(strategy="encoder_first", encoder_blocks=2).stages
    assert set(stage.rates) == {"encoder1", "encoder2", "head", NORMS}


# --------------------------------------------------------------------- staged
def test_stages_are_taken_as_they_are_written() -> None:
    schedule = planned(
        strategy="staged",
        stages=[
            {"epochs": 5, "freeze_level": 2, "lr": 1e-4, "augmentation": "none"},
            {"epochs": 9, "freeze_level": 1, "patience_epochs": 3, "start_from": "last"},
            {"epochs": 4, "blocks": ["encoder", "norms"], "warmup": 0.5},
        ],
    )
    head, decoder, own = schedule.stages
    assert (head.rates, head.augmentation) == ({"head": 1e-4}, "none")
    assert set(decoder.rates) == {"head", "decoder1", "decoder2", "decoder3"}
    assert decoder.curve.final == 1.0, "a stage whose length is not known holds its rate"
    assert (decoder.carries_best, own.carries_best) == (False, True)
    assert set(own.rates) == {"encoder1", "encoder2", "encoder3", NORMS}
    assert own.curve.warmup == 0.5
    assert schedule.max_epochs == 18


def test_a_jump_from_the_head_to_everything_is_remarked_upon() -> None:
    def remarks(lr: float) -> tuple[str, ...]:
        stages = [{"epochs": 2, "freeze_level": 2}, {"epochs": 2, "freeze_level": 0, "lr": lr}]
        return planned(strategy="staged", stages=stages).remarks

    assert "freeze_level: 1" in remarks(1e-3)[0]
    assert remarks(1e-4) == ()


def test_stages_that_say_nothing_or_too_much_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"finetuning\.stages"):
        planned(strategy="staged")
    for wrong in ({"epochs": 2}, {"epochs": 2, "freeze_level": 1, "blocks": ["head"]}):
        with pytest.raises(ValidationError, match="either freeze_level or blocks"):
            planned(strategy="staged", stages=[wrong])
    with pytest.raises(ConfigError, match="did you mean 'decoder1'"):
        planned(strategy="staged", stages=[{"epochs": 2, "blocks": ["decoder_1"]}])


# ------------------------------------------------------------------ which one
def test_without_a_word_everything_trains() -> None:
    schedule = planned()
    assert (schedule.strategy, schedule.trainable(0)) == ("full", set(EVERYTHING))
    assert schedule.stages[0].rates["decoder1"] == pytest.approx(0.9e-3)
    assert planned(llrd_decay=1.0).stages[0].rates["encoder1"] == pytest.approx(1e-3)


@pytest.mark.parametrize("given", [{"mode": "both"}, {"depth": 0}, {"unfreeze_frequency": 2}])
def test_a_setting_of_hsfs_gradual_unfreezing_chooses_it(given: dict[str, object]) -> None:
    schedule = planned(**given)
    assert schedule.strategy == "hsf"
    assert set(schedule.stages[0].rates.values()) == {1e-3}
    assert planned(strategy="hsf", **given) == schedule
    assert planned(strategy="gradual_unfreezing", **given) == schedule
    with pytest.raises(ValidationError, match=f"{next(iter(given))} would be ignored"):
        planned(strategy="lpft", **given)


# ------------------------------------------------------------------ every one
@pytest.mark.parametrize("strategy", ["hsf", "full", "lpft", "encoder_first"])
def test_rate_factors_apply_to_every_strategy(strategy: str) -> None:
    plain = planned(strategy=strategy, epochs=20)
    scaled = planned(strategy=strategy, epochs=20, lr_factors={"head": 10, "encoder": 0.5})
    for a, b in zip(plain.stages, scaled.stages, strict=True):
        factor = {"head": 10.0, "encoder1": 0.5, "encoder2": 0.5, "encoder3": 0.5}
        assert b.rates == pytest.approx({k: v * factor.get(k, 1.0) for k, v in a.rates.items()})
    with pytest.raises(ConfigError, match="no block 'haed'"):
        planned(strategy=strategy, lr_factors={"haed": 2.0})


@pytest.mark.parametrize("strategy", ["hsf", "full", "progressive", "lpft"])
def test_early_stopping_is_the_patience_of_the_last_stage(strategy: str) -> None:
    schedule = planned(strategy=strategy, early_stopping_epochs=4, epochs=30)
    assert schedule.stages[-1].patience_epochs == 4
    assert all(stage.patience_epochs is None for stage in schedule.stages[:-1])


@pytest.mark.parametrize(
    ("setting", "there"),
    [
        ({"strategy": "encoder_first", "encoder_blocks": 4}, "there are 3: encoder1"),
        ({"strategy": "gradual", "gradual_top_blocks": 8}, "there are 7: decoder1"),
    ],
)
def test_more_blocks_than_there_are_are_remarked_upon(
    setting: dict[str, object], there: str
) -> None:
    assert there in planned(**setting).remarks[0]


def test_more_epochs_make_the_last_stage_longer() -> None:
    stages = [{"freeze_level": level, "epochs": 4} for level in (1, 0)]
    found = planned(strategy="staged", stages=stages, epochs=20)
    assert [stage.epochs for stage in found.stages] == [4, 16]


def test_an_end_before_max_epochs_is_remarked_upon() -> None:
    found = planned(strategy="linear", linear_probe_epochs=5, epochs=20)
    assert found.max_epochs == 5
    assert "linear_probe_epochs=20" in found.remarks[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strategy": "full", "warmup_epochs": 6}, "warmup_epochs=6, and there are 6 epochs: no"),
        (
            {"strategy": "full", "lr_schedule": "plateau", "early_stopping_epochs": 4},
            "stage 1 ends after 4 epochs without a better Dice, before its rates can fall",
        ),
    ],
)
def test_rates_that_never_change_are_remarked(given: dict[str, object], said: str) -> None:
    assert any(said in remark for remark in planned(epochs=6, **given).remarks)
    assert not planned(epochs=6, **{**given, "warmup_epochs": 5, "lr_schedule": "cosine"}).remarks
