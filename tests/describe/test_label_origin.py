"""Labels that a person drew come before those of a program, which are never taken silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.describe.describe_folder import describe_folder
from hsf_finetune.describe.label_origin import choose_labels
from hsf_finetune.describe.layouts.base_layout import ListedVolume
from hsf_finetune.system.errors import DataError
from tests.describe import layouts


def volume(path: str) -> ListedVolume:
    *folders, name = path.split("/")
    return ListedVolume(VolumeRef(Path(path)), tuple(folders), name)


IMAGE = volume("images/x1")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("labels/final/x1", "labels/original/x1"),
        ("labels/final/x1", "labels/x1"),
        ("labels/manual/x1", "labels/auto/x1"),
        ("labels/x1", "predictions/x1"),
        ("labels/v10/x1", "labels/v9/x1"),
        ("x1_manualseg", "x1_autoseg"),
        ("derivatives/manual/x1", "derivatives/hippunfold-1.4/x1"),
        ("derivatives/ashs_corrected/x1", "derivatives/ashs/x1"),
        ("derivatives/labels/x1", "derivatives/TotalSegmentator/x1"),
        ("gt/x1", "nnUNet_seg/x1"),
    ],
)
def test_of_two_labels_the_one_by_hand_or_the_later_one_counts(better: str, worse: str) -> None:
    out, notes = choose_labels({volume(name): [IMAGE] for name in (worse, better)})
    assert [*out] == [volume(worse)]
    assert not notes


def test_two_raters_are_left_to_the_user() -> None:
    assert choose_labels({volume(f"labels_{rater}/x1"): [IMAGE] for rater in ("JD", "AB")}) == (
        {},
        [],
    )


def test_a_word_that_image_and_label_share_says_nothing() -> None:
    image = volume("ashs/images/x1")
    label, other = volume("ashs/labels/x1"), volume("ashs/labels/manual/x2")
    out, notes = choose_labels({label: [image], other: [volume("ashs/images/x2")]})
    assert not out
    assert not notes


@pytest.mark.parametrize("drawn", [0, 2, 6])
def test_predictions_of_monai_label_are_never_labels_without_a_word(
    drawn: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, source in enumerate(layouts.sources(tmp_path / "sources")):
        layouts.copy(source.image, tmp_path / "lab" / f"x{n}.nii.gz")
        layouts.copy(source.label, tmp_path / "lab" / "labels" / "original" / f"x{n}.nii.gz")
        if n < drawn:
            layouts.copy(source.label, tmp_path / "lab" / "labels" / "final" / f"x{n}.nii.gz")
    file = describe_folder(tmp_path / "lab", tmp_path / "datasets" / "x.yaml")
    said = capsys.readouterr().out
    assert f"{drawn or 6} cases" in said
    assert ("labels/final/" in file.read_text()) == (drawn > 0)
    assert ("not used, made by a program" in said) == (drawn > 0)
    assert ("patterns: programs made the labels" in said) == (drawn == 0)


def test_labels_of_one_side_each_are_a_question(tmp_path: Path) -> None:
    for n, source in enumerate(layouts.sources(tmp_path / "sources")):
        sub = f"sub-{n:02d}"
        layouts.copy(source.image, tmp_path / "lab" / sub / "anat" / f"{sub}_T2w.nii.gz")
        folder = tmp_path / "lab" / "derivatives" / "manual" / sub / "anat"
        for side in "LR":
            layouts.copy(source.label, folder / f"{sub}_hemi-{side}_dseg.nii.gz")
    with pytest.raises(DataError, match="one of 2 labels"):
        describe_folder(tmp_path / "lab", tmp_path / "datasets" / "x.yaml")
