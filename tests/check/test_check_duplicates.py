"""Scans under two names, in sets that are compared a few at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.check import check_duplicates
from hsf_finetune.check.check_case import examine
from hsf_finetune.check.check_duplicates import duplicate_findings
from hsf_finetune.check.measured_cases import Member
from tests.data.writing import case, nifti, scan


def members(folder: Path, count: int) -> list[Member]:
    found = []
    for n in range(count):
        one = case(folder, f"c{n}", seed=n)
        facts = examine(one)
        assert facts.measured is not None
        assert facts.portrait is not None
        # Labels are alike in these cases, which is another finding.
        measured = replace(facts.measured, label_hash=str(n))
        found.append(Member(one, measured, facts.portrait))
    return found


@pytest.mark.parametrize("at_once", [1, 2, 3, 64])
@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 6), (3, 4), (5, 6)])
def test_processed_copies_are_found_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, first: int, second: int
) -> None:
    monkeypatch.setattr(check_duplicates, "_AT_ONCE", at_once)
    found = members(tmp_path, 7)
    assert not list(duplicate_findings(found))
    path = found[second].case.images[0].path
    nifti(path, 3 * scan(first) + np.random.default_rng(9).normal(0, 0.1, scan().shape))
    copy = examine(found[second].case)
    assert copy.measured is not None
    assert copy.portrait is not None
    found[second] = replace(found[second], measured=copy.measured, portrait=copy.portrait)
    named = [(f.kind, f.case) for f in duplicate_findings(found) if f.kind != "set/same label"]
    assert named == [("set/nearly same image", f"c{second}")]
    assert f"with {found[first].image}" in next(
        f.found for f in duplicate_findings(found) if f.kind != "set/same label"
    )
