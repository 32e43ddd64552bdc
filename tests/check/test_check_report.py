"""What a check prints and writes: short, whole, and within its own folder."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.cli.check_command import check
from tests.conftest import tiny_case
from tests.data.writing import AFFINE, blobs, nifti, pair

YAML = """
main_path: {root}
output_path: {out}
datasets:
  {name}:
    path: .
    patterns:
      t2:
        mri: "{mri}"
        label: "{label}"
    labels_names: {{1: DG, 2: CA1}}
"""


class Lab:
    """Four cases in images and labels, and a YAML that describes them."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root / "lab", root / "out"
        self.name, self.mri, self.label = "lab", "images/*.nii.gz", "labels/*.nii.gz"
        for n in range(4):
            self.add(f"p{n}")

    def add(self, name: str) -> None:
        pair(self.root, f"images/{name}.nii.gz", f"labels/{name}.nii.gz")

    def check(self, pictures: int = 0) -> int:
        file = self.root.parent / "lab.yaml"
        file.write_text(YAML.format(**vars(self)))
        return check([str(file)], jobs=1, pictures=pictures)

    def report(self) -> dict[str, object]:
        (folder,) = self.out.iterdir()
        content: dict[str, object] = json.loads((folder / "check.json").read_text())
        return content


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_clean_check_says_what_it_saw(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    nifti(lab.root / "atlas.nii.gz")
    for _ in range(2):  # the second time from check.json
        assert lab.check() == 0
        said = capsys.readouterr().out
        assert "found: 4 cases of 4 subjects, 1 channel" in said
        assert "voxel size: 0.8 x 0.9 x 1.1 mm" in said
        assert "size: 10 x 9 x 8 voxels" in said
        assert "classes: DG in 4 (median 25.3 mm3), CA1 in 4 (median 25.3 mm3)" in said
        assert "not used, no pattern of 'lab' matches it: atlas.nii.gz" in said


def test_a_label_without_one_class_is_not_shifted(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in lab.root.rglob("*.nii.gz"):
        path.unlink()
    for number in range(9):
        image, label = tiny_case(number)
        where = np.indices(label.shape)[1]
        shape = np.where(label > 0, 1 + (where > 12), 0).astype(np.uint8)
        if number == 8:
            shape[shape == 2] = 0
        nifti(lab.root / "images" / f"p{number}.nii.gz", image)
        nifti(lab.root / "labels" / f"p{number}.nii.gz", shape)
    lab.check()
    (folder,) = lab.out.iterdir()
    said = capsys.readouterr().out + (folder / "check.json").read_text()
    assert "CA1 is not drawn in this case" in said
    assert "CA1 in 8" in said
    assert "8 of the 9 labels of the same dataset, pattern and side have it" in said
    assert "seems shifted" not in said
    assert "is flipped" not in said


def test_a_large_volume_is_no_power_of_ten(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for path in lab.root.rglob("*.nii.gz"):
        image = nib.nifti1.load(path)
        affine = np.diag([8.0, 9, 11, 1])
        nib.nifti1.save(nib.nifti1.Nifti1Image(np.asarray(image.dataobj), affine), path)
    lab.check()
    assert "DG in 4 (median 25344 mm3)" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["broken link", "no image", "other suffix"])
def test_a_label_without_its_image_is_never_fine(
    kind: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    image = lab.root / "images" / "p3.nii.gz"
    image.unlink()
    if kind == "broken link":
        image.symlink_to("/nowhere.nii.gz")
    if kind == "other suffix":
        nifti(image.with_suffix(""))
    assert lab.check() == 1
    said = capsys.readouterr().out
    assert "warned: a label without an image" in said
    assert str(lab.root / "labels" / "p3.nii.gz") in said
    assert "exclude:" in said


def test_one_kind_of_finding_is_printed_once_and_written_for_each_case(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(4):
        nifti(lab.root / "labels" / f"p{n}.nii.gz", 0 * blobs())
    assert lab.check() == 2  # no class is drawn
    said = capsys.readouterr().out
    assert said.count("nothing is drawn in the label") == 1
    assert "warned, 4 x (lab__images__p0, lab__images__p1, lab__images__p2, ... (4)):" in said
    found = lab.report()["findings"]
    assert isinstance(found, list)
    assert len([f for f in found if f["what"] == "nothing is drawn in the label"]) == 4


def test_pictures_have_a_cap_that_is_said(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(4):
        nifti(lab.root / "labels" / f"p{n}.nii.gz", 0 * blobs())
    lab.check(pictures=1)
    said = capsys.readouterr().out
    assert "1 picture)" in said
    assert "3 flagged cases without a picture: --pictures 4 draws them all" in said
    lab.check(pictures=4)
    assert "4 pictures)" in capsys.readouterr().out


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [np.uint64(2**64 - 1), np.float64(1e20)])
def test_a_value_that_is_too_large_is_named_and_drawn(
    value: np.generic, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    label = blobs().astype(value.dtype)
    label[0] = value
    image = nib.Nifti1Image(label, AFFINE, dtype=value.dtype)
    nib.save(image, lab.root / "labels" / "p0.nii.gz")
    lab.check(pictures=1)
    said = capsys.readouterr().out
    assert str(int(value)) in said
    assert "1 picture)" in said


@pytest.mark.parametrize("name", ["'../../evil'", "'/evil/x'", "'a/../../../b'", "'..'"])
def test_a_name_of_a_dataset_leads_nowhere(name: str, lab: Lab, tmp_path: Path) -> None:
    lab.name = name
    nifti(lab.root / "labels" / "p0.nii.gz", 0 * blobs())
    before = {*tmp_path.rglob("*")}
    lab.check(pictures=4)
    written = {*tmp_path.rglob("*")} - before - {tmp_path / "lab.yaml"}
    assert written
    assert all(path.is_relative_to(lab.out) for path in written)
    assert len([*lab.out.iterdir()]) == 1


def test_escape_sequences_of_names_do_not_reach_the_terminal(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.add("p\x1b[31m9")
    nifti(lab.root / "labels" / "q\x1b]0;title\x07.nii.gz", blobs())
    nifti(lab.root / "labels" / "p\x1b[31m9.nii.gz", 0 * blobs())
    assert lab.check(pictures=4) == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\\x1b]0;title" in said.out


def test_a_hostile_file_is_one_refused_case(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.mri, lab.label = "images/*", "labels/*"
    with h5py.File(lab.root / "images" / "q.h5", "w") as file:
        file.create_dataset("image", shape=(10_000,) * 3, dtype="f8", chunks=(10,) * 3)
        file["image"].attrs["affine"] = AFFINE
    with h5py.File(lab.root / "labels" / "q.h5", "w") as file:
        file.create_dataset("label", data=np.asarray(blobs())).attrs["affine"] = AFFINE
    assert lab.check(pictures=4) == 2
    said = capsys.readouterr().out
    assert "refused: the volume is too large to be read" in said
    assert "1 refused" in said
    assert "5 cases of 5 subjects" in said
