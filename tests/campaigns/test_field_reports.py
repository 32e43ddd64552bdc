"""The first inputs of every kind of fault that benchmarks/field_reports.py tries: none goes wrong in silence.

The kinds `kills`, `damaged files of a run` and the hostile ones are campaigns: the benchmark has their long
forms (`--kills 100`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from field import folders, hostile, hostile_texts, labels, runs, unseen, weights
from field.workbench import KINDS, Workbench

MODULES = (unseen, folders, labels, runs, hostile, hostile_texts, weights)
MANY = {"laterality": 64, "kills": 1, "terminations": 1, "names that mean the same": 3}
FEW = 2
"""Inputs of other kinds."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield Workbench(tmp_path_factory.mktemp("field"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_goes_wrong_in_silence(kind: str, bench: Workbench) -> None:
    attempts = list(islice(KINDS[kind](bench), MANY.get(kind, FEW)))
    assert attempts
    assert [f"{a.name}: {a.note}" for a in attempts if a.outcome == "wrong"] == []
    assert any(a.outcome == "right" for a in attempts)
