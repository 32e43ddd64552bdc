"""The cache: every mode gives the same samples, and nothing stale is read."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import psutil
import pytest
import torch

from hsf_finetune.config.settings import DatasetsSettings, Preprocessing
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.loading import sample_store as store_module
from hsf_finetune.data.loading.sample_store import SampleStore
from hsf_finetune.data.preprocessing.load_case import Sample
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.labels.classes import LabelMap
from hsf_finetune.system.errors import SeveralErrors
from tests.data.writing import AFFINE, SPACE, blobs, case, hdf5, minimal_settings, nifti, scan

MODES = ("memory", "disk", "off")


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [case(tmp_path / "raw", f"c{n}", seed=n) for n in range(4)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are decoded after this."""
    names: list[str] = []
    decode = store_module.load_case

    def counted(case: Case, spacing: Any) -> Sample:
        names.append(case.name)
        return decode(case, spacing)

    monkeypatch.setattr(store_module, "load_case", counted)
    return names


def settings(folder: Path, cache: str = "disk") -> DatasetsSettings:
    return minimal_settings(cache=cache, cache_dir=str(folder / "cache"))


def prepared(cases: list[Case], folder: Path, cache: str = "disk", **how: Any) -> SampleStore:
    store = SampleStore(cases, settings(folder, cache), Preprocessing(**how))
    store.prepare()
    return store


def cached(folder: Path) -> list[Path]:
    return sorted((folder / "cache").glob("*"))


def same(a: Sample, b: Sample) -> bool:
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.label, b.label)
        and (a.image.dtype, a.label.dtype) == (b.image.dtype, b.label.dtype)
        and a.spacing_mm == b.spacing_mm
    )


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0)])
def test_every_mode_gives_the_same_samples(
    cases: list[Case], tmp_path: Path, spacing: tuple[float, ...] | None
) -> None:
    stores = [prepared(cases, tmp_path, mode, spacing_mm=spacing) for mode in MODES]
    for one in cases:
        first, *others = [store.sample(one) for store in (*stores, *stores)]
        assert all(same(first, other) for other in others)


@pytest.mark.parametrize(("mode", "decoded"), [("memory", 1), ("disk", 1), ("off", 3)])
def test_cases_are_decoded_once_where_they_are_kept(
    cases: list[Case], tmp_path: Path, reads: list[str], mode: str, decoded: int
) -> None:
    store = prepared(cases, tmp_path, mode)
    for _ in range(2):
        for one in cases:
            store.sample(one)
    assert sorted(reads) == sorted([c.name for c in cases] * decoded)


def test_the_next_run_reads_the_disk_cache(
    cases: list[Case], tmp_path: Path, reads: list[str]
) -> None:
    prepared(cases, tmp_path)
    assert len(cached(tmp_path)) == len(cases)
    reads.clear()
    prepared(cases, tmp_path)
    assert reads == []


def test_a_changed_file_is_read_again(cases: list[Case], tmp_path: Path, reads: list[str]) -> None:
    before = prepared(cases, tmp_path).sample(cases[1])
    reads.clear()
    changed = nifti(cases[1].images[0].path, scan(99))
    os.utime(changed, ns=(1, 1))
    nifti(cases[2].label.path, blobs()[::-1].copy())
    os.utime(cases[2].label.path, ns=(1, 1))
    after = prepared(cases, tmp_path).sample(cases[1])
    assert sorted(reads) == ["c1", "c2"]
    assert not torch.equal(before.image, after.image)


def test_a_changed_setting_is_used(cases: list[Case], tmp_path: Path, reads: list[str]) -> None:
    prepared(cases, tmp_path)
    reads.clear()
    coarse = prepared(cases, tmp_path, spacing_mm=(2.0, 2.0, 2.0))
    assert len(reads) == len(cases)
    assert tuple(coarse.sample(cases[0]).label.shape) == (4, 4, 4)
    merged = LabelMap.from_sets(SPACE, {1: ["DG"], 2: ["DG"], 3: ["CA1"]})
    reads.clear()
    prepared([replace(c, protocol=merged) for c in cases], tmp_path)
    assert len(reads) == len(cases)


def test_another_key_or_geometry_of_one_file_is_another_sample(tmp_path: Path) -> None:
    arrays = {"left": scan(1), "right": scan(2), "seg": blobs()}
    path = hdf5(tmp_path / "a.h5", arrays)
    (base,) = [case(tmp_path, "x")]

    def described(key: str, size: float) -> Case:
        given = {"spacing_mm": (size, 1.0, 1.0)}
        image, label = VolumeRef(path, key, **given), VolumeRef(path, "seg", **given)
        return replace(base, name=f"{key}{size}", images=(image,), label=label)

    several = [described("left", 1), described("right", 1), described("left", 2)]
    store = prepared(several, tmp_path)
    assert len(cached(tmp_path)) == 3
    left, right, wide = (store.sample(one) for one in several)
    assert not torch.equal(left.image, right.image)
    assert wide.spacing_mm == (2, 1, 1)


@pytest.mark.parametrize("damage", ["truncated", "empty", "random", "pickle", "other"])
def test_a_damaged_cache_file_is_made_again(
    cases: list[Case], tmp_path: Path, reads: list[str], damage: str
) -> None:
    intact = [prepared(cases, tmp_path).sample(one) for one in cases]
    for path in cached(tmp_path):
        whole = path.read_bytes()
        if damage == "other":
            torch.save([1, 2], path)
        else:
            path.write_bytes(
                {
                    "truncated": whole[: len(whole) // 2],
                    "empty": b"",
                    "random": np.random.default_rng(0).bytes(500),
                    "pickle": pickle.dumps(SimpleNamespace(image=1), protocol=2),
                }[damage]
            )
    reads.clear()
    store = prepared(cases, tmp_path)
    assert sorted(reads) == [c.name for c in cases]
    assert all(same(store.sample(one), sample) for one, sample in zip(cases, intact, strict=True))
    reads.clear()
    prepared(cases, tmp_path)
    assert reads == []


@pytest.mark.parametrize("mode", ["auto", *MODES])
def test_every_bad_case_is_reported_at_once(
    cases: list[Case], tmp_path: Path, mode: Literal["auto", "memory", "disk", "off"]
) -> None:
    raw = tmp_path / "raw"
    (raw / "c0.nii.gz").write_bytes(b"nothing of the kind")
    nifti(raw / "c1_seg.nii.gz", blobs() * 5)
    nifti(raw / "c2.nii.gz", np.full_like(scan(), np.nan))
    (raw / "c3_seg.nii.gz").unlink()
    seen: list[tuple[int, int]] = []
    store = SampleStore(cases, settings(tmp_path, mode))
    with pytest.raises(SeveralErrors, match="4 of 4 cases cannot be used") as caught:
        store.prepare(lambda done, total: seen.append((done, total)))
    for name, reason in enumerate(["damaged", "does not list", "NaN", "no such file"]):
        assert f"c{name}" in str(caught.value.errors[name])
        assert reason in str(caught.value.errors[name])
    assert seen == [(n, 4) for n in range(1, 5)]


def test_auto_takes_the_disk_when_memory_is_short(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 4 * 10 * 9 * 8 * (4 + 1)

    def mode(available: float, **more: Any) -> str:
        memory = SimpleNamespace(available=available)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        return SampleStore(cases, settings(tmp_path, "auto"), Preprocessing(**more)).mode

    assert mode(2.1 * needed) == "memory"
    assert mode(1.9 * needed) == "disk"
    finer = (np.sqrt((AFFINE[:3, :3] ** 2).sum(0)) / 2).tolist()
    assert mode(8 * 2.1 * needed, spacing_mm=finer) == "memory"
    assert mode(8 * 1.9 * needed, spacing_mm=finer) == "disk"
