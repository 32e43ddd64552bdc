"""Segmentations pair with labels by the names that nnU-Net, BIDS and labs give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.evaluation.pair_files import pair_files
from hsf_finetune.system.errors import DataError

CASES = (1, 2, 10)


def folders(root: Path, predictions: list[str], labels: list[str]) -> tuple[Path, Path]:
    for folder, names in (("p", predictions), ("l", labels)):
        for name in names:
            path = root / folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root / "p", root / "l"


def test_probabilities_beside_segmentations_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = ["a", "a_probabilities", "sub-1_dseg", "sub-1_probseg"]
    found = pair_files(*folders(tmp_path, written, ["a", "sub-1_dseg"]))
    assert [*found] == ["a", "sub-1_dseg"]
    assert "left out: 2 files of probabilities" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ("case_{n:03d}_0000", "case_{n:03d}"),
        ("sub-{n}_T2w", "sub-{n}_dseg"),
        ("sub-{n}_T2w", "sub-{n}_space-T2w_desc-subfields_dseg"),
        ("sub-{n}_ses-1_T2w", "sub-{n}/ses-1/anat/sub-{n}_ses-1_desc-manual_dseg"),
        ("sub-{n}/anat/sub-{n}_T2w", "derivatives/manual/sub-{n}/anat/sub-{n}_dseg"),
        ("sub-{n}_hemi-L_T2w", "sub-{n}_hemi-L_dseg"),
        ("p{n}_image", "p{n}_label"),
        ("p{n}_T2_image", "p{n}_seg"),
        ("p{n}", "final/p{n}"),
        ("a/p{n}", "a/p{n}"),
        ("p{n}/T2", "p{n}/T2_seg"),
        ("p{n}/T2", "p{n}/seg_final"),
    ],
)
def test_names_pair_as_init_pairs_them(prediction: str, label: str, tmp_path: Path) -> None:
    names = [(prediction.format(n=n), label.format(n=n)) for n in CASES]
    both = folders(tmp_path, [p for p, _ in names], [name for _, name in names])
    assert pair_files(*both) == {
        p: (both[0] / f"{p}.nii.gz", both[1] / f"{name}.nii.gz") for p, name in names
    }


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [
        (["sub-1_T1w", "sub-1_T2w"], ["sub-1_dseg"]),
        (["sub-1_T2w"], ["sub-1_dseg", "sub-1_desc-b_dseg"]),
        (["a/x", "b/x"], ["x"]),
        (["x_image"], ["x_label", "x_seg"]),
    ],
)
def test_what_names_do_not_tell_is_refused_with_the_candidates(
    predictions: list[str], labels: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="names do not tell") as caught:
        pair_files(*folders(tmp_path, predictions, labels))
    for name in predictions:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [
        (["x"], ["y"]),
        (["sub-1_ses-1_T2w"], ["sub-1_ses-2_dseg"]),
        (["case_1"], ["case_10"]),
        (["a/case_1"], ["a/case_2"]),
        (["p1_left"], ["p1_right"]),
        (["case_0000", "case_0001"], ["case"]),
    ],
)
def test_other_cases_do_not_pair(predictions: list[str], labels: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        pair_files(*folders(tmp_path, predictions, labels))


def test_the_space_of_a_label_tells_its_image(tmp_path: Path) -> None:
    both = folders(tmp_path, ["sub-1_T2w"], ["sub-1_space-T2w_dseg"])
    assert [*pair_files(*both)] == ["sub-1_T2w"]


def test_files_behind_links_to_folders_count(tmp_path: Path) -> None:
    both = folders(tmp_path, ["a/x"], ["a/x", "b/y"])
    (both[1] / "b").rename(tmp_path / "elsewhere")
    (both[1] / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="without a prediction: b/y"):
        pair_files(*both)
    (both[0] / "b").symlink_to(tmp_path / "elsewhere")
    assert pair_files(*both).keys() == {"a/x", "b/y"}
