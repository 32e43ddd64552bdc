"""Facts in a file: as they were, as long as it is sound."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.check import kept_facts
from hsf_finetune.check.case_facts import CaseFacts, Thumbnails
from hsf_finetune.check.check_case import check_case
from hsf_finetune.check.kept_facts import FactsFile
from hsf_finetune.system.errors import OutputError
from tests.case_memory import MANY, peak_bytes_per_case
from tests.data.writing import blobs, case, nifti


@pytest.mark.parametrize("in_memory", [1, 2**22])
@pytest.mark.parametrize("label", ["drawn", "empty"])
def test_facts_come_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int, label: str
) -> None:
    monkeypatch.setattr(kept_facts, "_IN_MEMORY_BYTES", in_memory)
    one = case(tmp_path, "\udcff a")
    if label == "empty":
        nifti(one.label.path, np.zeros_like(blobs()))
    facts, file = check_case(one), FactsFile()
    file.add(None, facts)  # of a case without a file
    file.add("other", facts)
    kept = file.add("this", facts)
    file.save(tmp_path / "saved.jsonl")
    loaded = dict(FactsFile().load(tmp_path / "saved.jsonl", {"this"}))
    assert [*loaded] == ["this"]
    assert facts.thumbnails is not None
    for back in (kept, loaded["this"]):
        assert back.read_measures() == facts.measures
        assert back.findings == facts.findings
        found = vars(back.read_thumbnails())
        for name, cube in vars(facts.thumbnails).items():
            assert (cube is None) == (found[name] is None) == (label == "empty" and name != "image")
            assert np.array_equal(cube, found[name])


@pytest.mark.parametrize("damage", ["a byte of a thumbnail", "the end is missing", "no JSON"])
def test_facts_of_a_damaged_file_are_left_out(tmp_path: Path, damage: str) -> None:
    file, path = FactsFile(), tmp_path / "saved.jsonl"
    for n, key in enumerate("abc"):
        file.add(key, check_case(case(tmp_path, key, seed=n)))
    file.save(path)
    lines = path.read_bytes().splitlines(keepends=True)
    middle = {
        "a byte of a thumbnail": lines[1][:-9] + bytes([lines[1][-9] ^ 1]) + lines[1][-8:],
        "the end is missing": lines[1][:-30],
        "no JSON": lines[1][5:],
    }
    path.write_bytes(
        lines[0] + middle[damage] + (lines[2] if damage != "the end is missing" else b"")
    )
    expected = {"a byte of a thumbnail": "ac", "the end is missing": "a", "no JSON": "a"}
    assert {key for key, _ in FactsFile().load(path, {*"abc"})} == {*expected[damage]}


def test_the_memory_holds_no_thumbnails() -> None:
    """1 KB a case or less, where thumbnails alone have 12."""
    random = np.random.default_rng(0)
    cubes = [random.integers(-99, 99, (16, 16, 16), dtype=np.int8) for _ in range(3)]
    facts = CaseFacts((), None, Thumbnails(*cubes))
    file = FactsFile()
    for _ in range(600):  # past what stays in memory
        file.add(None, facts)
    tracemalloc.start()
    kept = [file.add(None, facts) for _ in range(200)]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 200 * 1000
    assert np.array_equal(kept[100].read_thumbnails().crop, cubes[1])


def test_measures_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_facts, "_IN_MEMORY_BYTES", 1)
    facts, file = check_case(case(tmp_path, "a")), FactsFile()
    for n in range(MANY):
        file.add(f"{n:03d}", facts)
    file.save(tmp_path / "saved.jsonl")

    def load(cases: int) -> object:
        kept = {f"{n:03d}" for n in range(cases)}
        return dict(FactsFile().load(tmp_path / "saved.jsonl", kept))

    found = peak_bytes_per_case(load)
    assert found < 600


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    file = FactsFile()
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(file, "_file", full)
        with pytest.raises(OutputError, match="TMPDIR"):
            file.add("a", CaseFacts(()))
