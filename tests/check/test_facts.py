"""What is kept of a case, in memory and on disk."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.check.check_case import examine
from hsf_finetune.check.check_cohort import look_at
from hsf_finetune.check.facts import Facts
from hsf_finetune.check.facts_cache import fingerprint
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.data.volumes.read_volume import VolumeRef
from tests.data.writing import PROTOCOL, SPACE, blobs, case, nifti, scan


def cohort(folder: Path, count: int = 5) -> Cohort:
    cases = [case(folder, f"c{n}", seed=n) for n in range(count)]
    return Cohort(tuple(cases), SPACE, 1, ())


def test_facts_come_back_as_they_were(tmp_path: Path) -> None:
    facts = examine(case(tmp_path, "a"))
    back = Facts.from_dict(json.loads(json.dumps(facts.to_dict())))
    assert back.measured == facts.measured
    assert back.findings == facts.findings
    assert facts.portrait is not None
    assert back.portrait is not None
    for name, picture in vars(facts.portrait).items():
        assert np.array_equal(picture, getattr(back.portrait, name))


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
    one, other = examine(plain).measured, examine(stored).measured
    assert one is not None
    assert other is not None
    assert (other.orientation, one.orientation) == ("ASR", "RAS")
    for name in ("shape", "spacing_mm", "centre", "centre_mm", "row_voxels", "row_x_mm"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4), name


def test_a_second_look_reads_only_what_changed(tmp_path: Path) -> None:
    cases = cohort(tmp_path)
    assert look_at(cases, jobs=2).known == 0
    again = look_at(cases, jobs=2)
    assert again.known == 5
    changed = cases.cases[2].images[0].path
    nifti(changed, np.full((10, 9, 8), 3.0, np.float32))
    third = look_at(cases, jobs=2)
    assert third.known == 4
    assert [f.file for f in third.of("refused") if f.kind == "content"] == [str(changed)]


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
    expected = [examine(one).measured for one in cases.cases]
    seen: list[int] = []
    look = look_at(cases, jobs=jobs, progress=lambda done, total: seen.append(done))
    assert [fact.measured for fact in look.facts] == expected
    assert seen == list(range(1, 8))
