"""The processor of a machine has a name."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from hsf_finetune.system.processor import processor_name


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [("processor\t: 0\nmodel name\t: Chip: 3\nmodel name\t: Chip: 3\n", "Chip: 3"), ("", "")],
)
def test_its_name_is_the_systems(monkeypatch: pytest.MonkeyPatch, cpuinfo: str, name: str) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpuinfo)
    assert processor_name() == (name or platform.processor() or platform.machine())
