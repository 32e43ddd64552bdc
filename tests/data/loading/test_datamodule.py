"""Loaders: the same batches for the same seed and epoch."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.data.loading.batches import Batch, BatchItem, TrainingCases
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.data.splits import Split
from tests.data.writing import blobs, case, minimal_settings


def module(folder: Path, shapes: list[tuple[int, ...]], **given: Any) -> CasesDataModule:
    cases = [case(folder, f"c{n}", n, shape) for n, shape in enumerate(shapes)]
    split = Split(tuple(cases[1:]), tuple(cases[:1]), (), "test")
    found = CasesDataModule(
        split, minimal_settings(**{"cache": "memory", **given}), (4, 4, 4), seed=3
    )
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


def test_a_worker_does_not_end_objects_of_the_process_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module(tmp_path, [(8, 8, 8)] * 3, num_workers=1)
    read, ended = TrainingCases.__getitem__, tmp_path / "ended"

    def read_after_collection(cases: TrainingCases, index: int) -> BatchItem:
        gc.collect()
        return read(cases, index)

    class Threads:
        """As a model with threads, in a cycle, which only a collection ends."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            ended.touch()

    monkeypatch.setattr(TrainingCases, "__getitem__", read_after_collection)
    gc.disable()
    try:
        Threads()
        assert batches(data)
        assert not ended.exists()
    finally:
        gc.enable()


def test_validation_sees_whole_volumes_in_order(tmp_path: Path) -> None:
    data = module(tmp_path, [(20, 9, 8), (8, 8, 8)], patch_vox=[8, 8, 8])
    (batch,) = data.val_dataloader()
    assert batch["case"] == ["c0"]
    assert batch["label"].shape == (1, 20, 12, 8)
    assert torch.equal(batch["label"][0, :, 2:11], torch.from_numpy(blobs((20, 9, 8))))


@pytest.mark.parametrize(("world_size", "accumulate", "steps"), [(1, 1, 4), (2, 1, 2), (1, 3, 2)])
def test_steps_of_an_epoch(tmp_path: Path, world_size: int, accumulate: int, steps: int) -> None:
    data = module(tmp_path, [(8, 8, 8)] * 3, batch_size=2, k_sample=7)
    assert len(data.train_dataloader()) == 4
    assert data.steps_per_epoch(world_size, accumulate) == steps
