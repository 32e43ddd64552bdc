"""Draws of an epoch: a function of seed and epoch, as often as weights decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.data.loading.epoch_sampler import CaseDraw, EpochSampler, choose_draw_weights
from hsf_finetune.labels.classes import LabelMap
from tests.data.writing import SPACE, case, minimal_settings

counts, draws = st.integers(1, 12), st.integers(1, 40)


def sampled(epoch: int = 0, cases: int = 1, **given: Any) -> list[CaseDraw]:
    defaults = {"weights": [1.0] * cases, "k_sample": None, "replace": False, "seed": 0}
    sampler = EpochSampler(**{**defaults, **given})
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


@given(counts, st.one_of(st.none(), draws), st.booleans(), st.integers(0, 99), st.integers(0, 9))
def test_seed_and_epoch_decide_on_the_draws(
    cases: int, k: int | None, replace: bool, seed: int, epoch: int
) -> None:
    given = {"cases": cases, "k_sample": k, "replace": replace, "seed": seed}
    assert sampled(epoch, **given) == sampled(epoch, **given)
    assert len(sampled(epoch, **given)) == (k or cases)


def test_other_epochs_and_seeds_give_other_draws() -> None:
    orders = [
        tuple(d.index for d in sampled(e, cases=20, seed=s)) for e in range(5) for s in range(5)
    ]
    assert len(set(orders)) == 25
    seeds = [d.seed for e in range(5) for d in sampled(e, cases=20)]
    assert len(set(seeds)) == 100


@given(counts, draws)
def test_without_replacement_every_case_is_drawn_before_any_is_drawn_again(
    cases: int, k: int
) -> None:
    order = [draw.index for draw in sampled(cases=cases, k_sample=k)]
    for start in range(0, k, cases):
        part = order[start : start + cases]
        assert len(set(part)) == len(part)
    assert set(order) <= set(range(cases))
    assert len({draw.seed for draw in sampled(cases=cases, k_sample=k)}) == k


def test_with_replacement_cases_come_independently() -> None:
    order = [draw.index for draw in sampled(cases=10, k_sample=2000, replace=True)]
    assert len(set(order[:10])) < 10
    assert all(140 < n < 260 for n in Counter(order).values())
    assert set(order) == set(range(10))


@given(
    st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=1, max_size=12), draws, st.integers(0, 9)
)
def test_weights_decide_how_often_a_case_is_drawn(weights: list[float], k: int, seed: int) -> None:
    given = {"k_sample": k, "weights": weights, "seed": seed}
    drawn = Counter(draw.index for draw in sampled(**given))
    for index, weight in enumerate(weights):
        expected = k * weight / sum(weights)
        assert np.floor(expected - 1e-9) <= drawn[index] <= np.ceil(expected + 1e-9)
    assert len(sampled(**given)) == k
    assert sampled(**given) == sampled(**given)


def test_weights_hold_with_replacement_too() -> None:
    given = {"k_sample": 4000, "replace": True, "weights": [1.0, 3.0]}
    drawn = Counter(draw.index for draw in sampled(**given))
    assert 850 < drawn[0] < 1150


def test_half_of_the_draws_are_of_the_finest_protocol(tmp_path: Path) -> None:
    merged = LabelMap.from_sets(SPACE, {1: SPACE.foreground})
    cases = [case(tmp_path, f"c{n}", n, (8, 8, 8)) for n in range(5)]
    cases = [*cases[:1], *(replace(one, dataset="b", protocol=merged) for one in cases[1:])]
    one = minimal_settings().datasets["lab"]
    a = cases[0].dataset
    found = choose_draw_weights(cases, {a: one, "b": one})
    assert found.by_dataset == {a: 4.0, "b": 1.0}
    assert f"cases of {a} are drawn 4 times as often" in found.remark
    given = choose_draw_weights(cases, {a: one, "b": one.model_copy(update={"weight": 2.0})})
    assert (given.by_dataset, given.remark) == ({a: 1.0, "b": 2.0}, "")
    alike = [replace(one, protocol=cases[0].protocol) for one in cases]
    assert choose_draw_weights(alike, {a: one, "b": one}).by_dataset == {a: 1.0, "b": 1.0}
    assert choose_draw_weights([cases[0], *cases[1:] * 5], {a: one, "b": one}).by_dataset[a] == 8.0


def test_equal_weights_of_any_size_are_alike() -> None:
    assert sampled(cases=5, weights=[2.0] * 5) == sampled(cases=5)


@given(counts, draws, st.booleans(), st.integers(1, 6))
def test_several_processes_together_draw_what_one_draws(
    cases: int, k: int, replace: bool, world_size: int
) -> None:
    given = {"cases": cases, "k_sample": k, "replace": replace, "world_size": world_size}
    alone = sampled(2, **{**given, "world_size": 1})
    ranks = [sampled(2, rank=rank, **given) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    together = [draw for turn in zip(*ranks, strict=True) for draw in turn]
    assert together[:k] == alone
    assert set(together) == set(alone)
