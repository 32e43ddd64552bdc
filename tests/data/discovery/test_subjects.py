"""Subjects: nobody may end up on both sides of a split."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.discovery.subjects import assign_subjects
from hsf_finetune.system.errors import ConfigError, DataError
from tests.data.writing import pair, settings, several

ROOT = Path("/data/lab")
MSD = Path(
    os.environ.get("HSF_FINETUNE_MSD")
    or Path(__file__).parents[4] / "shared" / "data" / "msd_hippocampus"
)


def subjects(*names: str, pattern: str | None = None) -> list[str]:
    return assign_subjects([ROOT / name for name in names], ROOT, pattern)


def groups(*names: str) -> list[int]:
    """Number of each file's subject, in order of appearance."""
    found = subjects(*names)
    order = list(dict.fromkeys(found))
    return [order.index(subject) for subject in found]


def test_a_bids_entity_is_the_subject() -> None:
    assert subjects(
        "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz", "sub-01/ses-2/x.nii.gz", "sub-A2_hemi-L.nii.gz"
    ) == ["sub-01", "sub-01", "sub-A2"]


@pytest.mark.parametrize("other", ["pilot.nii.gz", "SUB-05_T1w.nii.gz", "sub_05_T1w.nii.gz"])
def test_a_file_with_another_kind_of_name_does_not_change_the_subjects_of_the_others(
    other: str,
) -> None:
    names = [f"sub-{n:02d}_acq-{acq}_T2w.nii.gz" for n in range(1, 9) for acq in ("hi", "lo")]
    expected = [name[:6] for name in names]
    person = "pilot" if other.startswith("pilot") else "sub-05"
    assert subjects(*names, other) == [*expected, person]


def test_files_without_an_entity_are_looked_at_among_themselves() -> None:
    names = ["p1/left.nii", "p1/right.nii", "p2/left.nii", "p2/right.nii"]
    assert subjects("sub-01/sub-01_T2w.nii", *names) == ["sub-01", "p1", "p1", "p2", "p2"]
    assert subjects("more/sub-01_T2w.nii", "more/pilot.nii") == ["sub-01", "pilot"]
    assert subjects("sub-01/sub-01_T2w.nii", "p9/left.nii", "p9/p9_right.nii")[1:] == ["p9", "p9"]


def test_datasets_of_one_folder_share_subjects_whatever_their_spelling(tmp_path: Path) -> None:
    for name in ("sub-01_T1w", "SUB-01_T2w", "sub-02_T1w", "sub02_T2w", "sub-2_T1w"):
        pair(tmp_path, f"{name}.nii.gz", f"{name}_dseg.nii.gz")
    pair(tmp_path, "sub-2_T2w.nii.gz", "sub-2_T2w_dseg.nii.gz")
    series = {k: {"mri": f"*_{k}.nii.gz", "label": f"*_{k}_dseg.nii.gz"} for k in ("T1w", "T2w")}
    sets = {k: {"path": ".", "patterns": {k: series[k]}} for k in series}
    cohort = discover(several(tmp_path, **sets))
    by_name = {case.name.split("__")[1]: case.subject for case in cohort.cases}
    assert by_name["sub-01_T1w"] == by_name["SUB-01_T2w"] == "sub-01"
    assert by_name["sub-02_T1w"] == by_name["sub02_T2w"]
    assert by_name["sub-2_T1w"] == by_name["sub-2_T2w"] != by_name["sub-02_T1w"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["imagesTr/hip_375_0000", "imagesTr/hip_376_0000"], ["hip_375", "hip_376"]),
        (["hip_375_0000", "hip_375_ses-2", "pilot_0003"], ["hip_375", "hip_375", "pilot_0003"]),
        (["a_0000", "a_0001", "b_0000", "b_0001"], ["a", "a", "b", "b"]),
        (["scan_0000", "scan_0001", "scan_0002"], ["0000", "0001", "0002"]),
        (["hip_0000", "hip_0001", "hip_0002"], ["hip_0000", "hip_0001", "hip_0002"]),
        (["hip_0001", "hip_0007"], ["hip_0001", "hip_0007"]),
        (["img_0000"], ["0000"]),
        (["p1/t2_0000", "p2/t2_0000"], ["p1", "p2"]),
        (["dr.a_0000", "dr.b_0000"], ["dr_a", "dr_b"]),
    ],
)
def test_the_number_of_a_channel_is_no_part_of_the_subject(
    names: list[str], expected: list[str]
) -> None:
    assert subjects(*(f"{name}.nii.gz" for name in names)) == expected


def test_the_folders_of_hsf_cohorts_are_subjects() -> None:
    names = [
        f"{person}/{average}t2w_Hippocampus_{side}_ElasticSyN_crop.nii.gz"
        for person in ("c01", "c02", "c03")
        for side in ("left", "right")
        for average in ("", "averaged_")
    ]
    assert subjects(*names) == [name.split("/")[0] for name in names]


def test_a_flat_folder_of_numbered_volumes_is_many_subjects() -> None:
    names = [f"imagesTr/hippocampus_{n:03}.nii.gz" for n in range(30)]
    assert len(set(subjects(*names))) == 30


def test_a_flat_folder_of_images_named_by_number_alone_is_many_subjects() -> None:
    assert len(set(subjects("img_001.nii.gz", "img_002.nii.gz", "scan_003.nii.gz"))) == 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["s01_left_t2.nii.gz", "s01_right_t2.nii.gz", "s02_left_t2.nii.gz"], [0, 0, 1]),
        (["s01_L.nii.gz", "s01_R.nii.gz", "s02_lh.nii.gz", "s02-RH.nii"], [0, 0, 1, 1]),
        (["s01_hemi-L_T2w.nii.gz", "s01_hemi-R_T1w.nii.gz", "s02_mean.nii"], [0, 0, 1]),
        (["s01_lhippo.nii.gz", "s01_rhippo.nii.gz", "s02_lhippo.nii.gz"], [0, 0, 1]),
        (["vol_T01_left_im.h5", "vol_T01_right_im.h5", "vol_T02_left_im.h5"], [0, 0, 1]),
        (["s1_ses-1_t2.nii", "s1_ses-2_t2.nii", "s2_visit_1.nii"], [0, 0, 1]),
        (["ses_1_003.nii", "ses_2_003.nii", "ses_1_004.nii"], [0, 0, 1]),
        (["v01_left_t2.nii", "v01_right_t2.nii", "v02_left_t2.nii"], [0, 0, 1]),
        (["sub1/ses1/t2.nii", "sub1/ses2/t2.nii", "sub2/ses1/t2.nii"], [0, 0, 1]),
        (["sub1/ses-1/t2.nii", "sub1/ses-2/t2.nii", "sub2/ses-1/t2.nii"], [0, 0, 1]),
        (["p1/baseline/t2.nii", "p1/followup/t2.nii", "p2/baseline/t2.nii"], [0, 0, 1]),
        (["left/s1.nii", "right/s1.nii", "left/s2.nii", "right/s2.nii"], [0, 0, 1, 1]),
        (["ses1/s1.nii", "ses2/s1.nii", "ses1/s2.nii", "ses2/s2.nii"], [0, 0, 1, 1]),
        (["T1/s1.nii", "T2/s1.nii", "T1/s2.nii", "T2/s2.nii"], [0, 0, 1, 1]),
        (["p1/left.nii", "p1/right.nii", "p2/left.nii", "p2/right.nii"], [0, 0, 1, 1]),
        (["p1/p1_head.nii", "p1/p1_tail.nii", "p2/p2_head.nii", "p2/p2_tail.nii"], [0, 0, 1, 1]),
        (["p1/T2/a.nii", "p1/T1/a.nii", "p2/T2/a.nii"], [0, 0, 1]),
        (["left_t2.nii", "right_t2.nii"], [0, 0]),
        (["a.nii", "p1/b.nii", "p2/b.nii"], [0, 1, 1]),
    ],
)
def test_sides_sessions_and_contrasts_of_one_person_stay_together(
    names: list[str], expected: list[int]
) -> None:
    assert groups(*names) == expected


def test_an_expression_names_the_subject() -> None:
    names = ("x/P12-a.nii.gz", "y/P12-b.nii.gz", "P13.nii.gz")
    assert subjects(*names, pattern=r"P(\d+)") == ["12", "12", "13"]
    assert subjects(*names, pattern=r"P\d+") == ["P12", "P12", "P13"]
    assert subjects("a/b/c.nii", pattern=r"^([^/]+)/") == ["a"]


def test_an_expression_that_misses_a_file_names_it() -> None:
    with pytest.raises(DataError, match=r"x/other\.nii\.gz"):
        subjects("P12.nii.gz", "x/other.nii.gz", pattern=r"P(\d+)")


@pytest.mark.parametrize("pattern", [r"(?:x)?(P)?", "P("])
def test_an_expression_that_names_nobody_is_an_error(pattern: str) -> None:
    with pytest.raises((ConfigError, DataError), match="regular expression"):
        subjects("a.nii.gz", "b.nii.gz", pattern=pattern)


@pytest.mark.skipif(
    not MSD.is_dir(),
    reason="the MSD hippocampus volumes are not here; set HSF_FINETUNE_MSD to Task04_Hippocampus",
)
def test_every_volume_of_the_decathlon_is_a_subject() -> None:
    pattern = {"mri": "imagesTr/hippocampus_*.nii.gz", "label": "labelsTr/hippocampus_*.nii.gz"}
    cohort = discover(settings(MSD, {"volumes": pattern}))
    assert len({case.subject for case in cohort.cases}) == len(cohort.cases) >= 200
    assert all(case.subject == case.label.path.name[:15] for case in cohort.cases)
