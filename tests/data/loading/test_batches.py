"""Volumes of a batch: cut to patches, augmented, and padded with background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.loading.batches import BatchItem, TrainingCases, stack_items
from hsf_finetune.data.loading.epoch_sampler import CaseDraw
from hsf_finetune.data.loading.sample_store import SampleStore
from hsf_finetune.data.preprocessing.load_case import Sample
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.labels.classes import BACKGROUND_ROW, LabelMap
from hsf_finetune.networks.padding import Padding, pad_to
from tests.data.writing import AFFINE, PROTOCOL, SPACE, case, minimal_settings, nifti, scan


@pytest.mark.parametrize("padding", ["both", "symmetric", "end"])
def test_batches_are_padded_with_background_and_the_mean(padding: Padding) -> None:
    # Raw value 0 is not the smallest one.
    shifted = LabelMap.from_sets(SPACE, {-1: ["CA1"], 1: ["DG"]})

    def item(shape: tuple[int, int, int], protocol: LabelMap, seed: int) -> BatchItem:
        sample = Sample(
            torch.full((1, *shape), 5.0), torch.full(shape, 2, dtype=torch.uint8), (1, 1, 1)
        )
        return BatchItem(sample, torch.from_numpy(protocol.matrix), f"c{seed}", seed)

    items = [item((5, 9, 8), shifted, 7), item((3, 3, 3), PROTOCOL, 8)]
    batch = stack_items(items, (4, 4, 4), padding)
    assert batch["image"].shape == (2, 1, 8, 12, 8)
    assert batch["label"].shape == (2, 8, 12, 8)
    for n, shape in enumerate([(5, 9, 8), (3, 3, 3)]):
        ones = torch.ones(shape, dtype=torch.bool)
        inside = pad_to(ones, (8, 12, 8), False, padding)
        assert inside[0, 0, 0] == (padding == "end")
        assert (batch["image"][n, 0][inside] == 5).all()
        assert (batch["image"][n, 0][~inside] == 0).all()
        assert (batch["label"][n][inside] == 2).all()
        assert (batch["label"][n][~inside] == BACKGROUND_ROW).all()
    assert (batch["case"], batch["seed"]) == (["c7", "c8"], 7)


def test_the_allowed_classes_of_protocols_of_different_lengths() -> None:
    longer = LabelMap.from_sets(SPACE, {1: ["DG"], 2: ["CA1"], 3: ["DG", "CA1"]})
    sample = Sample(torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.uint8), (1, 1, 1))
    items = [BatchItem(sample, torch.from_numpy(m.matrix), "c") for m in (PROTOCOL, longer)]
    allowed = stack_items(items, (1, 1, 1))["allowed"]
    assert torch.equal(allowed[0, :3], torch.from_numpy(PROTOCOL.matrix))
    assert not allowed[0, 3].any()
    assert torch.equal(allowed[1], torch.from_numpy(longer.matrix))


def test_volumes_no_larger_than_a_patch_come_whole(tmp_path: Path) -> None:
    cases = [case(tmp_path, "a"), case(tmp_path, "b", 1, (20, 6, 8))]
    store = SampleStore(cases, minimal_settings())
    dataset = TrainingCases(store, cases, (10, 9, 8), 0.0)
    for seed in range(5):
        assert torch.equal(dataset[CaseDraw(0, seed)].sample.image, store.sample(cases[0]).image)
        assert dataset[CaseDraw(1, seed)].sample.label.shape == (10, 6, 8)
    starts = {float(dataset[CaseDraw(1, seed)].sample.image[0, 0, 0, 0]) for seed in range(20)}
    assert len(starts) > 5


def test_voxels_merged_into_the_background_draw_no_patches(tmp_path: Path) -> None:
    label = np.full((20, 8, 8), 9, dtype=np.uint8)
    label[18, 4, 4] = 1
    image = VolumeRef(nifti(tmp_path / "a.nii.gz", scan(shape=label.shape)))
    protocol = LabelMap.from_sets(SPACE, {1: ["DG"], 9: ["background"]})
    merged = Case(
        "a", "a", "lab", (image,), VolumeRef(nifti(tmp_path / "b.nii.gz", label)), protocol
    )
    dataset = TrainingCases(SampleStore([merged], minimal_settings()), [merged], (8, 8, 8), 1.0)
    assert all((dataset[CaseDraw(0, seed)].sample.label == 1).any() for seed in range(10))


def test_augmentation_gets_the_patch_and_leaves_the_cache_alone(tmp_path: Path) -> None:
    one = case(tmp_path, "a", 0, (20, 9, 8))
    store = SampleStore([one], minimal_settings(cache="memory"))
    store.prepare()
    before = store.sample(one).image.clone()
    seen = []

    def augment(image: Any, label: Any, allowed: Any, spacing: Any, seed: int) -> Any:
        seen.append((tuple(image.shape), tuple(label.shape), spacing, seed))
        return image + 1, label, ~allowed

    item = TrainingCases(store, [one], (8, 8, 8), 0.5, augment)[CaseDraw(0, 42)]
    assert torch.equal(item.allowed, ~torch.from_numpy(one.protocol.matrix))
    assert seen == [((1, 8, 8, 8), (8, 8, 8), pytest.approx(np.diag(AFFINE)[:3]), 42)]
    assert torch.equal(store.sample(one).image, before)
