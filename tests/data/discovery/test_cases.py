"""Discovery: every case once, every problem at once, every file in the ledger."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.ledger import write_ledger
from hsf_finetune.data.preprocessing.load_case import load_case
from hsf_finetune.data.splits import split_cases
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.system.errors import UserError
from tests.case_memory import FEW, MANY, peak_bytes_per_case
from tests.data.writing import (
    SHAPE,
    blobs,
    dicom,
    hdf5,
    itk,
    nifti,
    pair,
    scan,
    settings,
    several,
)

HSF = {
    f"{prefix}{side}_t2": {
        "mri": f"**/{prefix}t2w_Hippocampus_{side}_ElasticSyN_crop.nii.gz",
        "label": f"{prefix}t2w_Hippocampus_{side}_ElasticSyN_seg_crop.nii.gz",
    }
    for prefix in ("", "averaged_")
    for side in ("left", "right")
}
FLAT = {"t2": {"mri": "*_im.nii.gz", "label": "*_seg.nii.gz"}}
TWO_KEYS = {"t2": {"mri": "*.h5", "mri_key": "image", "label_key": "label"}}


def statuses(cohort: Cohort) -> dict[str, str]:
    return {entry.path.name: entry.status for entry in cohort.ledger()}


def test_a_dataset_in_hsf_form(tmp_path: Path) -> None:
    for person in ("c01", "c02"):
        for pattern in HSF.values():
            pair(tmp_path / "clark" / person, Path(pattern["mri"]).name, pattern["label"])
    described = {"path": "clark", "ca_type": "1/23", "patterns": HSF, "labels": {1: 1, 2: 2}}
    cohort = discover(several(tmp_path, clark=described))
    assert len(cohort.cases) == 8
    assert {case.subject for case in cohort.cases} == {"clark/c01", "clark/c02"}
    assert cohort.classes.names == ("background", "DG", "CA1")
    for case in cohort.cases:
        image, label = case.images[0].path, case.label.path
        assert label.parent == image.parent
        assert label.name == image.name.replace("_crop", "_seg_crop")
        assert case.name.startswith("clark__")


def test_image_and_label_in_one_file(tmp_path: Path) -> None:
    for n in range(3):
        hdf5(tmp_path / f"v{n}.h5", {"image": scan(n), "label": blobs()}, {"spacing_mm": [1, 1, 2]})
    cohort = discover(settings(tmp_path, TWO_KEYS))
    assert [(c.images[0].key, c.label.key) for c in cohort.cases] == [("image", "label")] * 3
    assert load_case(cohort.cases[0]).spacing_mm == (1, 1, 2)
    assert len([*cohort.ledger()]) == 3


def test_both_sides_in_one_file_are_two_cases_of_one_subject(tmp_path: Path) -> None:
    arrays = {f"{side}/{kind}": scan() for side in ("left", "right") for kind in ("mri", "seg")}
    hdf5(tmp_path / "p1.h5", arrays)
    patterns = {
        side: {"mri": "*.h5", "mri_key": f"{side}/mri", "label_key": f"{side}/seg"}
        for side in ("left", "right")
    }
    cohort = discover(settings(tmp_path, patterns))
    assert [case.name for case in cohort.cases] == ["lab__p1__left", "lab__p1__right"]
    assert len({case.subject for case in cohort.cases}) == 1
    assert len([*cohort.ledger()]) == 2


def test_several_channels_as_files_and_as_keys(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pair(tmp_path, f"{name}_T1.nii.gz", f"{name}_seg.nii.gz")
        nifti(tmp_path / f"{name}_T2.nii.gz")
        arrays = {"t1": scan(1), "t2": scan(2), "seg": blobs()}
        hdf5(tmp_path / "h5" / f"{name}.h5", arrays, {"spacing_mm": [1.0, 1, 1]})
    files = {"mri": ["*_T1.nii.gz", "*_T2.nii.gz"], "label": "*_seg.nii.gz"}
    keys = {"mri": "h5/*.h5", "mri_key": ["t1", "t2"], "label_key": "seg"}
    cohort = discover(settings(tmp_path, {"files": files, "keys": keys}))
    assert cohort.channels == 2
    named = [[ref.key or ref.path.name for ref in case.images] for case in cohort.cases]
    assert named == [
        ["a_T1.nii.gz", "a_T2.nii.gz"],
        ["b_T1.nii.gz", "b_T2.nii.gz"],
        ["t1", "t2"],
        ["t1", "t2"],
    ]
    assert load_case(cohort.cases[2]).image.shape == (2, *scan().shape)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"t2": {"mri": "*_T2w.nii.gz", "label": "*_seg.nii.gz"}}, r"no image matches.*lab\.t2"),
        ({"t2": {"mri": "*_im.nii.gz", "label": "seg_*.nii.gz"}}, "has no label"),
        ({"t2": {"mri": "*_im.nii.gz", "label": "a_seg.nii.gz"}}, "have the same label"),
        ({"t2": {"mri": "*_im.nii.gz"}}, "names no label"),
        ({"t2": {"mri": [], "label": "*_seg.nii.gz"}}, "has no pattern for its images"),
        ({"t2": {"mri": ["*_im.nii.gz", "*_T1.nii.gz"], "label": "*_seg.nii.gz"}}, "no channel"),
        ({"t2": {**FLAT["t2"], "mri_key": []}}, "number of channels"),
        (
            {"a": FLAT["t2"], "b": {**FLAT["t2"], "mri": "**/*_im.nii.gz"}},
            "patterns match the same",
        ),
        ({"a": {"mri": "/x/*.nii", "label": "y"}}, "relative to the dataset's path"),
        (
            {"a": FLAT["t2"], "b": {"mri": "*_seg.nii.gz", "label": "*_im.nii.gz"}},
            "and as a label",
        ),
        ({"t2": {"mri": "*.nii.gz", "label": "*_seg.nii.gz"}}, "has no label"),
    ],
)
def test_descriptions_that_do_not_fit_the_files(
    tmp_path: Path, patterns: dict[str, dict[str, str]], message: str
) -> None:
    for name in ("a", "b"):
        pair(tmp_path, f"{name}_im.nii.gz", f"{name}_seg.nii.gz")
    with pytest.raises(UserError, match=message):
        discover(settings(tmp_path, patterns))


def test_one_key_for_image_and_label_is_an_error(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.h5", {"main": blobs()})
    pattern = {"mri": "*.h5", "mri_key": "main", "label_key": "main"}
    with pytest.raises(UserError, match="as an image and as a label"):
        discover(settings(tmp_path, {"t2": pattern}))


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    pair(tmp_path / "one", "a_im.nii.gz", "a_seg.nii.gz")
    for name in ("b_im.nii.gz", "c_im.nii.gz"):
        nifti(tmp_path / "one" / name)
    nifti(tmp_path / "two" / "d_im.nii.gz")
    nifti(tmp_path / "two" / "d_seg.nii.gz")
    with pytest.raises(UserError) as caught:
        discover(
            several(
                tmp_path,
                one={"path": "one", "patterns": FLAT},
                two={"path": "two", "patterns": FLAT, "subject": "P(\\d+)"},
                three={"path": "three", "patterns": FLAT},
                four={"path": "two", "patterns": FLAT, "exclude": ["typo*"]},
            )
        )
    for expected in ("b_im.nii.gz", "c_im.nii.gz", "P(\\d+)", "does not exist", "typo*"):
        assert expected in str(caught.value)


def test_datasets_with_colliding_names_keep_their_cases_apart(tmp_path: Path) -> None:
    for folder in ("x/y", "x__y", "x y", "x"):
        pair(tmp_path / folder, "a_im.nii.gz", "a_seg.nii.gz")
    pattern = {"t2": {"mri": "**/a_im.nii.gz", "label": "a_seg.nii.gz"}}
    cohort = discover(settings(tmp_path, pattern))
    names = [case.name for case in cohort.cases]
    assert len(set(names)) == 4
    assert names == sorted(names)
    assert all("/" not in name and " " not in name for name in names)
    assert len({case.images for case in cohort.cases}) == 4


def test_two_datasets_may_not_use_one_image_with_one_label(tmp_path: Path) -> None:
    pair(tmp_path / "lab", "a_im.nii.gz", "a_seg.nii.gz")
    one, other = {"path": "lab", "patterns": FLAT}, {"path": "./lab/", "patterns": FLAT}
    with pytest.raises(UserError, match="several datasets use the same image and label"):
        discover(several(tmp_path, one=one, other=other))
    nifti(tmp_path / "lab" / "a_second.nii.gz", blobs())
    second = {"t2": {"mri": "**/*_im.nii.gz", "label": "*_second.nii.gz"}}
    nested = {"path": ".", "patterns": second}
    with pytest.raises(UserError, match="for different subjects"):
        discover(several(tmp_path, one=one, other=nested))


def test_two_raters_of_one_image_are_one_subject(tmp_path: Path) -> None:
    pair(tmp_path / "lab", "a_im.nii.gz", "a_seg.nii.gz")
    nifti(tmp_path / "lab" / "a_second.nii.gz", blobs())
    second = {"t2": {"mri": "*_im.nii.gz", "label": "*_second.nii.gz"}}
    datasets = {
        "one": {"path": "lab", "patterns": FLAT},
        "two": {"path": "lab/", "patterns": second},
    }
    cohort = discover(several(tmp_path, **datasets))
    assert [case.name for case in cohort.cases] == ["one__a_im", "two__a_im"]
    assert {case.subject for case in cohort.cases} == {"lab/a"}
    assert set(statuses(cohort).values()) == {"image", "label"}


@pytest.mark.parametrize("glob", ["sub-2/**", "sub-2", "**/b_*", "sub-2/b_im*", "**/b_seg.nii.gz"])
def test_excluded_files_are_left_out_and_listed(tmp_path: Path, glob: str) -> None:
    pair(tmp_path / "sub-1", "a_im.nii.gz", "a_seg.nii.gz")
    pair(tmp_path / "sub-2", "b_im.nii.gz", "b_seg.nii.gz")
    pattern = {"t2": {"mri": "**/*_im.nii.gz", "label": "*_seg.nii.gz"}}
    cohort = discover(settings(tmp_path, pattern, exclude=[glob]))
    assert [case.subject for case in cohort.cases] == ["sub-1"]
    excluded = [e for e in cohort.ledger() if e.status == "excluded"]
    assert excluded
    assert all(glob in entry.reason for entry in excluded)


def test_excluding_everything_is_an_error(tmp_path: Path) -> None:
    pair(tmp_path, "a_im.nii.gz", "a_seg.nii.gz")
    for glob in ("*", "*_seg*"):
        with pytest.raises(UserError, match="exclude: leaves no case"):
            discover(settings(tmp_path, FLAT, exclude=[glob]))


def test_labels_are_named_and_merged_as_described(tmp_path: Path) -> None:
    pair(tmp_path, "a_im.nii.gz", "a_seg.nii.gz")
    names = {0: "Background", 1: "DG", 2: "CA1"}
    more = {"labels": {10: 1, 20: 2, 21: 2, 9: 0}, "labels_names": names}
    (case,) = discover(settings(tmp_path, FLAT, **more)).cases
    assert dict(case.protocol.sets) == {
        0: {"background"}, 9: {"background"}, 10: {"DG"}, 20: {"CA1"}, 21: {"CA1"}
    }  # fmt: skip
    with pytest.raises(UserError, match="without a name"):
        discover(settings(tmp_path, FLAT, labels={1: 3}))


def test_the_number_of_channels_must_agree(tmp_path: Path) -> None:
    pair(tmp_path / "one", "a_im.nii.gz", "a_seg.nii.gz")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    nifti(tmp_path / "two" / "a_T1.nii.gz")
    double = {"t2": {"mri": ["*_im.nii.gz", "*_T1.nii.gz"], "label": "*_seg.nii.gz"}}
    one, two = {"path": "one", "patterns": FLAT}, {"path": "two", "patterns": double}
    with pytest.raises(UserError, match="differ in their number of input channels"):
        discover(several(tmp_path, one=one, two=two))


def test_the_ledger_lists_every_volume(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pair(tmp_path, f"{name}_im.nii.gz", f"{name}_seg.nii.gz")
    for name in ("._a_im.nii.gz", "atlas.nii.gz", "old_im.nii.gz"):
        nifti(tmp_path / name)
    configured = settings(tmp_path, FLAT, exclude=["old*"])
    cohort = discover(configured)
    write_ledger(tmp_path / "ledger.csv", cohort, split_cases(cohort.cases, configured, 0))
    with (tmp_path / "ledger.csv").open() as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert {name: row["fate"] for name, row in rows.items()} == statuses(cohort)
    assert statuses(cohort) == {
        "a_im.nii.gz": "image", "a_seg.nii.gz": "label", "b_im.nii.gz": "image",
        "b_seg.nii.gz": "label", "old_im.nii.gz": "excluded", "._a_im.nii.gz": "excluded",
        "atlas.nii.gz": "unused",
    }  # fmt: skip
    assert {rows["a_im.nii.gz"]["side"], rows["b_im.nii.gz"]["side"]} == {"train", "validation"}
    assert rows["b_seg.nii.gz"]["case"] == cohort.cases[1].name


def left_out(cohort: Cohort) -> dict[str, str]:
    return {entry.path.name: entry.reason for entry in cohort.ledger() if entry.fix}


FOLDERS = {"t2": {"mri": "images/*.nii.gz", "label": "labels/*.nii.gz"}}


def test_files_that_lack_a_partner_are_listed_with_a_remedy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pair(tmp_path, f"images/{name}.nii.gz", f"labels/{name}.nii.gz")
    for name in ("lost", "dangling", "other", "foreign", "left"):
        nifti(tmp_path / "labels" / f"{name}.nii.gz", blobs())
    (tmp_path / "images" / "dangling.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    nifti(tmp_path / "images" / "other.nii")
    (tmp_path / "images" / "foreign.mnc").touch()
    for name in ("x.mnc", "readme.nii.gz.txt"):
        (tmp_path / name).touch()
    nifti(tmp_path / "atlas.nii")
    cohort = discover(settings(tmp_path, FOLDERS, exclude=["labels/left*"]))
    assert left_out(cohort) == {
        **{f"{n}.nii.gz": "a label without an image" for n in ("lost", "other", "foreign")},
        "dangling.nii.gz": "a label without an image",
        "other.nii": "its suffix .nii is not that of the pattern, .nii.gz",
        "foreign.mnc": ".mnc files are not read",
    }
    links = [e.reason for e in cohort.ledger() if e.path.is_symlink()]
    assert links == ["a link that leads to no file"]
    assert all("exclude:" in entry.fix for entry in cohort.ledger() if entry.fix)
    assert statuses(cohort)["atlas.nii"] == "unused"
    assert "x.mnc" not in statuses(cohort)


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("x/images", "x/labels"), (".", ".")]
)
def test_labels_beside_images_lack_a_partner_too(tmp_path: Path, images: str, labels: str) -> None:
    pair(tmp_path, f"{images}/a_im.nii.gz", f"{labels}/a_seg.nii.gz")
    nifti(tmp_path / labels / "b_seg.nii.gz", blobs())
    nifti(tmp_path / "elsewhere" / "c_seg.nii.gz", blobs())
    beside = images == labels
    label = "*_seg.nii.gz" if beside else "../labels/*_seg.nii.gz"
    pattern = {"t2": {"mri": f"{images}/*_im.nii.gz", "label": label}}
    cohort = discover(settings(tmp_path, pattern))
    assert left_out(cohort) == {"b_seg.nii.gz": "a label without an image"}


def test_suffixes_in_capitals_are_read(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    pair(tmp_path, "images/b.NII.GZ", "labels/b.nii.gz")
    pair(tmp_path, "images/c.nii.gz", "labels/c.Nii.Gz")
    cohort = discover(settings(tmp_path, FOLDERS))
    assert [case.images[0].path.name[0] for case in cohort.cases] == ["a", "b", "c"]
    assert not left_out(cohort)
    for case in cohort.cases:
        for ref in case.volumes:
            assert read_volume(ref).array.shape == SHAPE


def test_scans_and_labels_of_any_format_are_paired(tmp_path: Path) -> None:
    image = scan().astype(np.int16)
    for name in ("s1", "s2"):
        dicom(tmp_path / name / "t2", image)
        itk(tmp_path / name / "label.seg.nrrd", blobs())
    patterns = {"t2": {"mri": "*/t2", "label": "label.seg.nrrd"}}
    cohort = discover(settings(tmp_path, patterns))
    assert [case.images[0].path.parent.name for case in cohort.cases] == ["s1", "s2"]
    sample = load_case(cohort.cases[0])
    plain = nifti(tmp_path / "a.nii", image), nifti(tmp_path / "a_seg.nii", blobs())
    expected = replace(cohort.cases[0], images=(VolumeRef(plain[0]),), label=VolumeRef(plain[1]))
    assert torch.equal(sample.image, load_case(expected).image)
    assert torch.equal(sample.label, load_case(expected).label)
    table = tmp_path / "cases.csv"
    table.write_text("image,label\ns1/t2,s1/label.seg.nrrd\n")
    (case,) = discover(several(tmp_path, lab={"path": ".", "table": "cases.csv"})).cases
    assert case.volumes == cohort.cases[0].volumes


@pytest.mark.parametrize("layout", ["sub-{:03d}/", "sub-{:03d}_"])
def test_discovery_takes_little_memory(tmp_path: Path, layout: str) -> None:
    for cases in (FEW, MANY):
        for n, name in product(range(cases), ("t2.nii", "seg.nii")):
            path = Path(f"{tmp_path}/{cases}/{layout.format(n)}{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    start = layout.format(0).replace("000", "*")
    patterns = {"t2": {"mri": f"{start}t2.nii", "label": f"{start}seg.nii"}}
    found = peak_bytes_per_case(lambda cases: discover(settings(tmp_path / str(cases), patterns)))
    assert found < 1500
