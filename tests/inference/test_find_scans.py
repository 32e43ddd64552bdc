"""Which files of a folder are scans: not labels, and none is passed over without a word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from hsf_finetune.inference.find_scans import FolderScans, find_scans
from hsf_finetune.system.errors import DataError


def find(folder: Path, pattern: str | None = None, key: str | None = None) -> FolderScans:
    return find_scans(folder, pattern, key, folder / "segmentations")


def names(found: FolderScans, folder: Path) -> list[str]:
    return [ref.path.relative_to(folder).as_posix() for ref in found.scans]


def touch(folder: Path, files: Sequence[str]) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def hdf5(path: Path, *keys: str) -> None:
    with h5py.File(path, "w") as file:
        for key in keys:
            file[key] = np.ones((3, 4, 5))


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("sub-01/anat/sub-01_T2w.nii.gz", "derivatives/manual/sub-01/sub-01_T2w_dseg.nii.gz"),
        ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"),
        ("imagesTs/a.nii.gz", "labelsTs/a.nii.gz"),
        ("a/t2.nii", "a/t2_seg.nii"),
        ("a/T1.NII.GZ", "a/mask.nii.gz"),
        ("images/a.nii.gz", "ground_truth/a.nii.gz"),
        ("a.nii.gz", "a_label.mgz"),
    ],
)
def test_what_is_named_like_a_label_is_no_scan(tmp_path: Path, image: str, label: str) -> None:
    touch(tmp_path, [image, label])
    found = find(tmp_path)
    assert names(found, tmp_path) == [image]
    assert found.skipped == ((tmp_path / label, "named like a label"),)


def test_a_word_in_a_folder_of_all_scans_says_nothing(tmp_path: Path) -> None:
    touch(tmp_path, ["seg_project/a.nii.gz", "seg_project/b.nii.gz"])
    assert len(find(tmp_path).scans) == 2


def test_hdf5_datasets_are_scans_or_labels(tmp_path: Path) -> None:
    hdf5(tmp_path / "both.h5", "image", "label")
    hdf5(tmp_path / "only.h5", "label")
    hdf5(tmp_path / "several.h5", "t1", "t2", "seg")
    hdf5(tmp_path / "vol_im.h5", "main")
    hdf5(tmp_path / "vol_seg.h5", "main")
    found = find(tmp_path)
    assert [(ref.path.name, ref.key) for ref in found.scans] == [
        ("both.h5", "image"),
        ("several.h5", None),  # reading it says which datasets there are
        ("vol_im.h5", "main"),
    ]
    assert [path.name for path, _ in found.skipped] == ["only.h5", "vol_seg.h5"]
    chosen = find(tmp_path, key="label").scans
    assert {ref.key for ref in chosen} == {"label"}


def test_a_pattern_takes_exactly_what_it_matches(tmp_path: Path) -> None:
    touch(tmp_path, ["a/t1.nii.gz", "a/t2.nii.gz", "b/t2_seg.nii.gz", "c.nrrd"])
    found = find(tmp_path, "**/t2*.nii.gz")
    assert names(found, tmp_path) == ["a/t2.nii.gz", "b/t2_seg.nii.gz"]
    assert found.skipped == tuple(
        (tmp_path / name, "not matched by **/t2*.nii.gz") for name in ("a/t1.nii.gz", "c.nrrd")
    )


def test_images_in_other_formats_are_scans_that_cannot_be_read(tmp_path: Path) -> None:
    foreign = ["b.mnc", "c.hdr", "d.gipl", "e.vtk", "f.img.gz", "g/IM01.dcm"]
    touch(tmp_path, ["a.nii.gz", "c.img", "notes.txt", "scan.json", "x.npy", *foreign])
    (tmp_path / "y.nii.gz").symlink_to("/nowhere/y.nii.gz")
    assert names(find(tmp_path), tmp_path) == ["a.nii.gz", *foreign, "y.nii.gz"]


def test_a_folder_of_dicom_files_is_one_scan(tmp_path: Path) -> None:
    touch(tmp_path, ["a.nii.gz", "study/DICOMDIR", "study/t2/notes.txt"])
    for name in ("IM01.dcm", "IM02", "1.2.840.3"):
        (tmp_path / "study" / "t2" / name).write_bytes(bytes(128) + b"DICM" + bytes(8))
    assert names(find(tmp_path), tmp_path) == ["study/t2", "a.nii.gz"]
    assert names(find(tmp_path / "study" / "t2"), tmp_path) == ["study/t2"]


def test_hidden_files_and_segmentations_are_neither(tmp_path: Path) -> None:
    touch(tmp_path, ["a.nii.gz", "._a.nii.gz", ".cache/b.nii.gz", "segmentations/a.nii.gz"])
    assert find(tmp_path).skipped == ()
    assert names(find(tmp_path), tmp_path) == ["a.nii.gz"]


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, ["a_seg.nii.gz", "b_seg.nii.gz"])
    with pytest.raises(DataError, match=r"no scan[\s\S]*2 named like a label[\s\S]*--pattern"):
        find(tmp_path)


@pytest.mark.parametrize("pattern", [None, "**/t2.nii.gz"])
def test_folders_behind_links_are_entered(tmp_path: Path, pattern: str | None) -> None:
    touch(tmp_path / "archive", ["s1/t2.nii.gz"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "sub-1").symlink_to(tmp_path / "archive" / "s1")
    (tmp_path / "archive" / "s1" / "back").symlink_to(tmp_path / "in")
    assert names(find(tmp_path / "in", pattern), tmp_path / "in") == ["sub-1/t2.nii.gz"]
