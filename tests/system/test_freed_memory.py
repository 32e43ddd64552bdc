"""Freed memory is returned when it adds up over scans, and not more often than it helps."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from hsf_finetune.system import freed_memory
from hsf_finetune.system.freed_memory import FreedMemory


@pytest.mark.parametrize(
    ("held_mib", "returned_after"),
    [
        pytest.param([100] * 60, [], id="same scans"),
        pytest.param([100] * 10 + [101] * 40, [], id="little more"),
        pytest.param([100] * 30 + [150] + [100] * 40, [31], id="one large scan"),
        pytest.param([100] * 10 + [150] * 100, [11], id="larger scans from then on"),
        pytest.param([100] * 10 + [103, *[101] * 8, 103] * 2, [11, 21], id="gaps again"),
        pytest.param([*range(100, 109), 120], [], id="few scans"),
    ],
)
def test_freed_memory_is_returned_when_it_adds_up(
    held_mib: list[int], returned_after: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def process() -> Iterator[SimpleNamespace]:
        for held in held_mib:
            yield SimpleNamespace(memory_info=lambda held=held: SimpleNamespace(rss=held << 20))

    found: list[int] = []
    done = 0
    memory, scans = FreedMemory(), process()
    monkeypatch.setattr(psutil, "Process", lambda: next(scans))
    library = SimpleNamespace(malloc_trim=lambda pad: found.append(done))
    monkeypatch.setattr(freed_memory, "_c_library", lambda: library)
    while done < len(held_mib):
        done += 1
        memory.note_scan(voxels=2**20)
    assert found == returned_after


def test_after_each_large_scan_it_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    library = SimpleNamespace(malloc_trim=found.append)
    monkeypatch.setattr(freed_memory, "_c_library", lambda: library)
    memory = FreedMemory()
    for voxels in (2**20, 2**24, 300**3):
        memory.note_scan(voxels)
    assert found == [0, 0]


def test_without_glibc_nothing_is_kept_or_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_c_library", lambda: None)
    memory = FreedMemory(scans=30, usual_bytes=1)
    memory.note_scan(voxels=2**30)
    assert (memory.scans, freed_memory.keep_freed_memory()) == (31, False)
