"""The data at hand beside what a source model has seen."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hsf_finetune.check.check_cohort import check_cases
from hsf_finetune.check.check_source import compare_with_source, summarise_data
from hsf_finetune.check.measured_cases import select_measured
from hsf_finetune.data.data_summary import DataSummary
from tests.data.writing import case

SEEN = DataSummary(40, (0.8, 0.8, 0.8), (40, 56, 40), -0.5, {"DG": -0.4, "CA1": 0.2})


def kinds(target: DataSummary, **more: object) -> list[str]:
    return [f.kind for f in compare_with_source(target, SEEN, "best.ckpt", **more)]  # type: ignore[arg-type]


def test_the_same_kind_of_data_raises_nothing() -> None:
    assert kinds(SEEN) == []
    assert kinds(dataclasses.replace(SEEN, cases=3, size_vox=(50, 60, 44), contrast=-0.3)) == []


def test_each_difference_is_named_with_its_remedy() -> None:
    coarse = dataclasses.replace(SEEN, spacing_mm=(0.8, 2.0, 0.8))
    (finding, *_) = compare_with_source(coarse, SEEN, "best.ckpt")
    assert finding.kind == "source/spacing"
    assert finding.fix == "preprocessing.spacing=[0.8, 0.8, 0.8]"
    assert "source/contrast" in kinds(dataclasses.replace(SEEN, contrast=0.6))
    assert "source/size" in kinds(dataclasses.replace(SEEN, size_vox=(200, 200, 200)))
    assert "source/contrast" in kinds(dataclasses.replace(SEEN, profile={"DG": 0.9, "CA1": 0.1}))


def test_resampling_takes_care_of_the_voxel_size() -> None:
    coarse = dataclasses.replace(SEEN, spacing_mm=(2.0, 2.0, 2.0), size_vox=(16, 22, 16))
    assert "source/spacing" in kinds(coarse)
    assert kinds(coarse, target_spacing_mm=[0.8, 0.8, 0.8]) == []


def test_a_summary_comes_back_as_it_was(tmp_path: Path) -> None:
    cases = [case(tmp_path, f"c{n}", seed=n) for n in range(3)]
    measured = select_measured(cases, check_cases(cases)[0])
    summary = summarise_data(measured)
    assert summary is not None
    assert (summary.cases, summary.size_vox) == (3, (10, 9, 8))
    assert summary.spacing_mm == pytest.approx((0.8, 0.9, 1.1))
    assert set(summary.profile) == {"background", "DG", "CA1"}
    assert DataSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    assert summarise_data([]) is None
