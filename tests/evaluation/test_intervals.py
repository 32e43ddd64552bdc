"""Bootstrap intervals depend on values and on who belongs together, and on nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.evaluation.intervals import bootstrap_interval
from tests.closeness import assert_equal_up_to_rounding

VALUES = st.floats(-1e6, 1e6) | st.just(math.nan)
CASES = st.lists(st.tuples(VALUES, st.sampled_from("abcdef")), min_size=1, max_size=20)


@given(CASES)
def test_the_interval_holds_the_mean(cases: list[tuple[float, str]]) -> None:
    values, groups = zip(*cases, strict=True)
    known = [(v, g) for v, g in cases if not math.isnan(v)]
    interval = bootstrap_interval(values, groups, samples=200)
    assert interval.n == len(known)
    assert interval.subjects == len({g for _, g in known})
    if not known:
        assert math.isnan(interval.mean)
    else:
        assert interval.mean == pytest.approx(np.mean([v for v, _ in known]), abs=1e-6)
    if interval.subjects < 2:
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
    else:
        assert interval.low <= interval.mean <= interval.high


@given(CASES, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(cases: list[tuple[float, str]], random: object) -> None:
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    values, groups = zip(*cases, strict=True)
    other, renamed = [v for v, _ in shuffled], [-ord(g) for _, g in shuffled]
    first = bootstrap_interval(values, groups, samples=100)
    again = bootstrap_interval(other, renamed, samples=100)
    np.testing.assert_array_equal(list(vars(first).values()), list(vars(again).values()))


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-1e3, 1e3))
def test_a_constant_shift_moves_the_interval(values: list[float], shift: float) -> None:
    before = bootstrap_interval(values, samples=100)
    after = bootstrap_interval(np.add(values, shift), samples=100)
    for a, b in ((after.low, before.low), (after.high, before.high)):
        assert_equal_up_to_rounding(a, b + shift, scale=2e3)


def test_doubling_every_case_within_its_subject_changes_nothing() -> None:
    values = np.random.default_rng(0).random(12)
    once = bootstrap_interval(values, list(range(12)))
    twice = bootstrap_interval(np.tile(values, 2), list(range(12)) * 2)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    assert (twice.n, twice.subjects) == (24, 12)
    apart = bootstrap_interval(np.tile(values, 2))
    assert apart.high - apart.low < 0.8 * (once.high - once.low)


def test_one_subject_says_nothing_about_spread() -> None:
    interval = bootstrap_interval([0.7, 0.9, math.nan], ["a", "a", "b"])
    assert interval.mean == pytest.approx(0.8)
    assert (interval.n, interval.subjects) == (2, 1)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_more_confidence_is_wider_and_the_seed_decides() -> None:
    values = np.random.default_rng(1).random(15)
    narrow, wide = (bootstrap_interval(values, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_many_cases_give_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(size=3000)
    interval = bootstrap_interval(values, samples=4000)
    half = 1.96 * values.std() / math.sqrt(3000)
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.05)


@pytest.mark.parametrize("n", [2, 3, 5, 7, 10])
def test_few_cases_still_get_an_honest_interval(n: int) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        interval = bootstrap_interval(rng.normal(size=n), samples=500)
        hits += interval.low <= 0 <= interval.high
    # The plain percentile interval holds the mean in about 50 % (n = 2), 84 % (n = 5) and
    # 90 % (n = 10).
    assert hits / 300 > 0.905


@pytest.mark.parametrize("n", [5, 10, 40])
@pytest.mark.parametrize("kind", ["Dice", "change"])
def test_intervals_of_cohorts_hold_the_true_mean_as_often_as_they_say(n: int, kind: str) -> None:
    """800 simulated cohorts of n subjects with two sides each."""
    rng, hits, cohorts = np.random.default_rng(n), 0, 800
    subjects = np.repeat(np.arange(n), 2).tolist()
    truth = 0.8 if kind == "Dice" else 0.02
    for seed in range(cohorts):
        # Dice of subjects is skewed; changes of it are not.
        own = rng.beta(12, 3, n) if kind == "Dice" else rng.normal(0.02, 0.03, n)
        sides = np.repeat(own, 2) + rng.normal(0, 0.02, 2 * n)
        found = bootstrap_interval(sides, subjects, samples=1000, seed=seed)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / cohorts <= 0.98


def test_few_subjects_have_student_s_interval() -> None:
    values = np.array([0.5, 0.7, 0.9])
    half = 4.302653 * values.std(ddof=1) / math.sqrt(3)
    interval = bootstrap_interval(values)
    assert (interval.low, interval.high) == pytest.approx((0.7 - half, 0.7 + half), abs=1e-6)
    assert interval.kind == "t"
    cut = bootstrap_interval(values, bounds=(0.0, 1.0))
    assert (cut.low, cut.high) == (pytest.approx(0.7 - half), 1.0)
    assert bootstrap_interval(np.linspace(0, 1, 8)).kind == "bootstrap"


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="1 groups for 2 values"):
        bootstrap_interval([1, 2], ["a"])
    with pytest.raises(ValueError, match="one dimension"):
        bootstrap_interval([[1, 2]])
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval([1, 2], confidence=95)
