"""Scans under two names, in sets that are compared a few at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.check import check_duplicates
from hsf_finetune.check.check_case import check_case
from hsf_finetune.check.check_duplicates import find_duplicates
from hsf_finetune.check.kept_facts import FactsFile
from hsf_finetune.check.measured_cases import MeasuredCase, select_measured
from tests.data.writing import case, nifti, scan


def measured_cases(folder: Path, count: int) -> list[MeasuredCase]:
    found = []
    for n in range(count):
        one = case(folder, f"c{n}", seed=n)
        facts = check_case(one)
        assert facts.measures is not None
        # The labels are the same in these cases, which is another finding.
        facts = replace(facts, measures=replace(facts.measures, label_hash=str(n)))
        found.append(MeasuredCase(one, FactsFile().add(None, facts)))
    return found


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 6), (3, 4), (5, 6)])
def test_processed_copies_are_found_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, first: int, second: int
) -> None:
    monkeypatch.setattr(check_duplicates, "_BATCH", batch)
    found = measured_cases(tmp_path, 7)
    assert not list(find_duplicates(found))
    path = found[second].case.images[0].path
    nifti(path, 3 * scan(first) + np.random.default_rng(9).normal(0, 0.1, scan().shape))
    copy = FactsFile().add(None, check_case(found[second].case))
    (found[second],) = select_measured([found[second].case], [copy])
    named = [(f.kind, f.case) for f in find_duplicates(found) if f.kind != "set/same label"]
    assert named == [("set/nearly same image", f"c{second}")]
    assert f"with {found[first].image_file}" in next(
        f.found for f in find_duplicates(found) if f.kind != "set/same label"
    )
