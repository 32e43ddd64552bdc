"""What is kept of a case, in memory and on disk."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.check.case_facts import fingerprint
from hsf_finetune.check.check_case import check_case
from hsf_finetune.check.check_cohort import check_cases
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.data.volumes.read_volume import VolumeRef
from tests.data.writing import PROTOCOL, SPACE, blobs, case, nifti, scan


def cohort(folder: Path, count: int = 5) -> Cohort:
    cases = [case(folder, f"c{n}", seed=n) for n in range(count)]
    return Cohort(tuple(cases), SPACE, 1, ())


def test_measures_are_along_ras_axes(tmp_path: Path) -> None:
    plain = case(tmp_path, "a")
    array, label = scan(), blobs()
    affine = nib.load(plain.images[0].path).affine
    # The same volume, stored from front to back and bottom to top first.
    turned = affine[:, [1, 2, 0, 3]]
    stored = Case(
        "b",
        "b",
        "lab",
        (VolumeRef(nifti(tmp_path / "b.nii.gz", array.transpose(1, 2, 0), turned)),),
        VolumeRef(nifti(tmp_path / "b_seg.nii.gz", label.transpose(1, 2, 0), turned)),
        PROTOCOL,
    )
    one, other = check_case(plain).measures, check_case(stored).measures
    assert one is not None
    assert other is not None
    assert (other.orientation, one.orientation) == ("ASR", "RAS")
    for name in ("shape", "spacing_mm", "centre", "centre_mm", "row_voxels", "row_x_mm"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4), name


def test_a_second_check_reads_only_what_changed(tmp_path: Path) -> None:
    cases = cohort(tmp_path).cases
    assert check_cases(cases, jobs=2)[1] == 0
    assert check_cases(cases, jobs=2)[1] == 5
    changed = cases[2].images[0].path
    nifti(changed, np.full((10, 9, 8), 3.0, np.float32))
    facts, unchanged = check_cases(cases, jobs=2)
    assert unchanged == 4
    assert [(f.kind, f.file) for f in facts[2].findings] == [("content", str(changed))]


def test_the_fingerprint_changes_with_time_of_change_and_labels(tmp_path: Path) -> None:
    one = case(tmp_path, "a")
    before = fingerprint(one)
    other = dataclasses.replace(PROTOCOL, sets=PROTOCOL.sets[:-1])
    assert fingerprint(dataclasses.replace(one, protocol=other)) != before
    os.utime(one.label.path, ns=(1, 1))
    assert fingerprint(one) != before
    one.label.path.unlink()
    assert fingerprint(one) is None


@pytest.mark.parametrize("jobs", [1, 3])
def test_facts_do_not_depend_on_the_number_of_threads(tmp_path: Path, jobs: int) -> None:
    cases = cohort(tmp_path, 7)
    expected = [check_case(one).measures for one in cases.cases]
    done: list[int] = []
    facts, _ = check_cases(cases.cases, jobs, lambda count, total: done.append(count))
    assert [fact.read_measures() for fact in facts] == expected
    assert done == list(range(1, 8))
