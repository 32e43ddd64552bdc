"""Batches: the same ones for the same seed and epoch, padded with background."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.loading.datamodule import (
    Batch,
    CasesDataModule,
    Collate,
    Item,
    TrainingCases,
)
from hsf_finetune.data.loading.draws import Draw, EpochSampler, draw_weights
from hsf_finetune.data.loading.patches import patch_corner
from hsf_finetune.data.loading.sample_store import SampleStore
from hsf_finetune.data.preprocessing.grid import Sample
from hsf_finetune.data.splits import Split
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.labels.classes import BACKGROUND_ROW, LabelMap
from tests.data.writing import AFFINE, NAMES, PROTOCOL, SPACE, blobs, case, nifti, scan

counts, draws = st.integers(1, 12), st.integers(1, 40)
triples = st.tuples(*[st.integers(1, 14)] * 3)


def sampled(epoch: int = 0, **given: Any) -> list[Draw]:
    sampler = EpochSampler(**{"k_sample": None, "replace": False, "seed": 0, **given})
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def settings(**given: Any) -> DatasetsSettings:
    lab = {"path": ".", "patterns": {"t2": {"mri": "*"}}, "labels_names": NAMES}
    return DatasetsSettings.model_validate({"cache": "memory", "datasets": {"lab": lab}, **given})


def module(folder: Path, shapes: list[tuple[int, ...]], **given: Any) -> CasesDataModule:
    cases = [case(folder, f"c{n}", n, shape) for n, shape in enumerate(shapes)]
    split = Split(tuple(cases[1:]), tuple(cases[:1]), (), "test")
    found = CasesDataModule(split, settings(**given), (4, 4, 4), seed=3)
    found.read()
    return found


def batches(data: CasesDataModule, epoch: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)  # type: ignore[arg-type]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a["image"], b["image"])
        and torch.equal(a["label"], b["label"])
        and (a["case"], a["seed"]) == (b["case"], b["seed"])
        for a, b in zip(one, other, strict=True)
    )


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
def test_without_replacement_every_case_comes_before_any_comes_again(cases: int, k: int) -> None:
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
def test_weights_say_how_often_a_case_comes(weights: list[float], k: int, seed: int) -> None:
    given = {"cases": len(weights), "k_sample": k, "weights": weights, "seed": seed}
    came = Counter(draw.index for draw in sampled(**given))
    for index, weight in enumerate(weights):
        expected = k * weight / sum(weights)
        assert np.floor(expected - 1e-9) <= came[index] <= np.ceil(expected + 1e-9)
    assert len(sampled(**given)) == k
    assert sampled(**given) == sampled(**given)


def test_weights_hold_with_replacement_too() -> None:
    given = {"cases": 2, "k_sample": 4000, "replace": True, "weights": [1.0, 3.0]}
    came = Counter(draw.index for draw in sampled(**given))
    assert 850 < came[0] < 1150


def test_half_of_the_draws_are_of_the_finest_protocol(tmp_path: Path) -> None:
    merged = LabelMap.from_sets(SPACE, {1: SPACE.foreground})
    cases = [case(tmp_path, f"c{n}", n, (8, 8, 8)) for n in range(5)]
    cases = [*cases[:1], *(replace(one, dataset="b", protocol=merged) for one in cases[1:])]
    one = settings().datasets["lab"]
    a = cases[0].dataset
    found = draw_weights(cases, {a: one, "b": one})
    assert found.of == {a: 4.0, "b": 1.0}
    assert f"cases of {a} come 4 times as often" in found.remark
    given = draw_weights(cases, {a: one, "b": one.model_copy(update={"weight": 2.0})})
    assert (given.of, given.remark) == ({a: 1.0, "b": 2.0}, "")
    alike = [replace(one, protocol=cases[0].protocol) for one in cases]
    assert draw_weights(alike, {a: one, "b": one}).of == {a: 1.0, "b": 1.0}
    assert draw_weights([cases[0], *cases[1:] * 5], {a: one, "b": one}).of[a] == 8.0


def test_equal_weights_are_none() -> None:
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


def test_batches_are_padded_with_background_and_the_mean() -> None:
    # Raw value 0 is not the smallest one here.
    shifted = LabelMap.from_sets(SPACE, {-1: ["CA1"], 1: ["DG"]})

    def item(shape: tuple[int, int, int], protocol: LabelMap, seed: int) -> Item:
        sample = Sample(
            torch.full((1, *shape), 5.0), torch.full(shape, 2, dtype=torch.uint8), (1, 1, 1)
        )
        return Item(sample, torch.from_numpy(protocol.matrix), f"c{seed}", seed)

    batch = Collate((4, 4, 4))([item((5, 9, 8), shifted, 7), item((3, 3, 3), PROTOCOL, 8)])
    assert batch["image"].shape == (2, 1, 8, 12, 8)
    assert batch["label"].shape == (2, 8, 12, 8)
    for n, shape in enumerate([(5, 9, 8), (3, 3, 3)]):
        inside = torch.zeros(8, 12, 8, dtype=torch.bool)
        inside[tuple(slice(size) for size in shape)] = True
        assert (batch["image"][n, 0][inside] == 5).all()
        assert (batch["image"][n, 0][~inside] == 0).all()
        assert (batch["label"][n][inside] == 2).all()
        assert (batch["label"][n][~inside] == BACKGROUND_ROW).all()
    assert (batch["case"], batch["seed"]) == (["c7", "c8"], 7)


def test_the_allowed_classes_of_protocols_of_different_lengths() -> None:
    longer = LabelMap.from_sets(SPACE, {1: ["DG"], 2: ["CA1"], 3: ["DG", "CA1"]})
    sample = Sample(torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.uint8), (1, 1, 1))
    items = [Item(sample, torch.from_numpy(m.matrix), "c") for m in (PROTOCOL, longer)]
    allowed = Collate((1, 1, 1))(items)["allowed"]
    assert torch.equal(allowed[0, :3], torch.from_numpy(PROTOCOL.matrix))
    assert not allowed[0, 3].any()
    assert torch.equal(allowed[1], torch.from_numpy(longer.matrix))


@given(triples, triples, st.integers(0, 999))
def test_a_patch_lies_inside_and_shows_foreground_if_it_must(
    shape: tuple[int, int, int], patch: tuple[int, int, int], seed: int
) -> None:
    label = torch.zeros(shape, dtype=torch.uint8)
    spot = tuple(int(np.random.default_rng(seed).integers(n)) for n in shape)
    label[spot] = 2
    label[0, 0, 0] = 1 if spot != (0, 0, 0) else 2
    foreground, stated = torch.tensor([False, False, True]), torch.ones(3, dtype=torch.bool)
    corner = patch_corner(label, patch, 1.0, foreground, stated, seed)
    for a, n, p in zip(corner, shape, patch, strict=True):
        assert 0 <= a <= max(n - p, 0)
    part = label[tuple(slice(a, a + p) for a, p in zip(corner, patch, strict=True))]
    assert (part == 2).any()
    assert part.shape == tuple(min(n, p) for n, p in zip(shape, patch, strict=True))


def test_patches_go_everywhere_when_they_need_not_show_foreground() -> None:
    label = torch.zeros(20, 20, 20, dtype=torch.uint8)
    label[10, 10, 10] = 1
    foreground, stated = torch.tensor([False, True]), torch.tensor([True, True])
    anywhere = {patch_corner(label, (4, 4, 4), 0.0, foreground, stated, s) for s in range(300)}
    assert {a for a, _, _ in anywhere} == set(range(17))
    near = {patch_corner(label, (4, 4, 4), 1.0, foreground, stated, s) for s in range(20)}
    assert near == {(8, 8, 8)}
    empty = {patch_corner(label * 0, (4, 4, 4), 1.0, foreground, stated, s) for s in range(300)}
    assert empty == anywhere


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_in_sparse_annotation_every_patch_shows_something_that_is_said(share: float) -> None:
    # Row 2 says nothing but in one slice, which holds a spot of foreground.
    label = torch.full((20, 20, 20), 2, dtype=torch.uint8)
    label[:, 13] = 0
    label[4, 13, 4] = 1
    foreground, stated = torch.tensor([False, True, False]), torch.tensor([True, True, False])
    starts = [patch_corner(label, (4, 4, 4), share, foreground, stated, s) for s in range(100)]
    for x, y, z in starts:
        part = label[x : x + 4, y : y + 4, z : z + 4]
        assert (part == (1 if share else 0)).any()
    assert len(set(starts)) == 1 if share else len(set(starts)) > 50


def test_volumes_no_larger_than_a_patch_come_whole(tmp_path: Path) -> None:
    cases = [case(tmp_path, "a"), case(tmp_path, "b", 1, (20, 6, 8))]
    store = SampleStore(cases, settings())
    dataset = TrainingCases(store.view(cases), (10, 9, 8), 0.0, None)
    for seed in range(5):
        assert torch.equal(dataset[Draw(0, seed)].sample.image, store.sample(0).image)
        assert dataset[Draw(1, seed)].sample.label.shape == (10, 6, 8)
    starts = {float(dataset[Draw(1, seed)].sample.image[0, 0, 0, 0]) for seed in range(20)}
    assert len(starts) > 5


def test_voxels_merged_into_the_background_draw_no_patches(tmp_path: Path) -> None:
    label = np.full((20, 8, 8), 9, dtype=np.uint8)
    label[18, 4, 4] = 1
    image = VolumeRef(nifti(tmp_path / "a.nii.gz", scan(shape=label.shape)))
    protocol = LabelMap.from_sets(SPACE, {1: ["DG"], 9: ["background"]})
    merged = Case(
        "a", "a", "lab", (image,), VolumeRef(nifti(tmp_path / "b.nii.gz", label)), protocol
    )
    dataset = TrainingCases(SampleStore([merged], settings()).view([merged]), (8, 8, 8), 1.0, None)
    assert all((dataset[Draw(0, seed)].sample.label == 1).any() for seed in range(10))


def test_augmentation_gets_the_patch_and_leaves_the_cache_alone(tmp_path: Path) -> None:
    one = case(tmp_path, "a", 0, (20, 9, 8))
    store = SampleStore([one], settings())
    store.prepare()
    before = store.sample(0).image.clone()
    seen = []

    def augment(image: Any, label: Any, allowed: Any, spacing: Any, seed: int) -> Any:
        seen.append((tuple(image.shape), tuple(label.shape), spacing, seed))
        return image + 1, label, ~allowed

    item = TrainingCases(store.view([one]), (8, 8, 8), 0.5, augment)[Draw(0, 42)]
    assert torch.equal(item.allowed, ~torch.from_numpy(one.protocol.matrix))
    assert seen == [((1, 8, 8, 8), (8, 8, 8), pytest.approx(np.diag(AFFINE)[:3]), 42)]
    assert torch.equal(store.sample(0).image, before)


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
def test_workers_give_the_same_batches(tmp_path: Path, cache: str) -> None:
    more = {"batch_size": 2, "patch_vox": [8, 8, 8], "cache": cache, "k_sample": 5}
    shapes = [(10, 9, 8), (14, 9, 12), (6, 8, 8), (9, 9, 9)]
    given = {**more, "cache_dir": str(tmp_path / "cache")}
    alone, shared = (module(tmp_path, shapes, num_workers=n, **given) for n in (0, 2))
    first = batches(alone)
    assert [len(batch["case"]) for batch in first] == [2, 2, 1]
    assert equal(first, batches(shared))
    assert equal(first, batches(alone))
    assert not equal(first, batches(alone, epoch=1))


def test_validation_sees_whole_volumes_in_order(tmp_path: Path) -> None:
    data = module(tmp_path, [(20, 9, 8), (8, 8, 8)], patch_vox=[8, 8, 8])
    (batch,) = data.val_dataloader()
    assert batch["case"] == ["c0"]
    assert batch["label"].shape == (1, 20, 12, 8)
    assert torch.equal(batch["label"][0, :, :9], torch.from_numpy(blobs((20, 9, 8))))


@pytest.mark.parametrize(("world_size", "accumulate", "steps"), [(1, 1, 4), (2, 1, 2), (1, 3, 2)])
def test_steps_of_an_epoch(tmp_path: Path, world_size: int, accumulate: int, steps: int) -> None:
    data = module(tmp_path, [(8, 8, 8)] * 3, batch_size=2, k_sample=7)
    assert len(data.train_dataloader()) == 4
    assert data.steps_per_epoch(world_size, accumulate) == steps
