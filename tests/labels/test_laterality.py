"""Left and right in names."""

from __future__ import annotations

import pytest

from hsf_finetune.labels.laterality import other_side, side_of


@pytest.mark.parametrize(
    "name",
    [
        "DG_left",
        "left DG",
        "L-DG",
        "DG.r",
        "lh.DG",
        "DG (L)",
        "RightDG",
        "DG/rh",
        "hippocampusLeft",
    ],
)
def test_sides_are_seen_in_class_names(name: str) -> None:
    other = other_side(name)
    assert other not in (None, name)
    assert other_side(str(other)) == name


@pytest.mark.parametrize("name", ["CA2/3", "SRLM", "alveus", "fimbria_1", "PRESUB", "cyst", "R1"])
def test_other_names_say_no_side(name: str) -> None:
    assert other_side(name) is None


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("sub-1_hemi-L_T2w.nii.gz", "left"),
        ("right_DG", "right"),
        ("left_and_right", None),
        ("sub-1_T2w.nii.gz", None),
    ],
)
def test_a_name_has_one_side_or_none(name: str, side: str | None) -> None:
    assert side_of(name) == side
