"""init as it is typed: where it writes, what it refuses, what it says."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from hsf_finetune.cli.check_command import check
from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.describe.describe_folder import describe_folder
from hsf_finetune.describe.output_file import find_output_file
from hsf_finetune.planning.training_colours import training_colours
from hsf_finetune.system.errors import ConfigError, DataError, OutputError
from tests.data.writing import AFFINE, blobs, dicom, hdf5, itk, nifti, pair, scan


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    for n in range(4):
        pair(tmp_path / "lab", f"p{n}_im.nii.gz", f"p{n}_seg.nii.gz")
    return tmp_path / "lab"


def written(lab: Path, name: str = "mine") -> dict[str, object]:
    """The cohort of the YAML that init writes for a folder."""
    file = describe_folder(lab, lab.parent / "conf" / "datasets" / f"{name}.yaml", force=True)
    cohort: dict[str, object] = yaml.safe_load(file.read_text())["datasets"][name]
    return cohort


def test_the_printed_command_finds_the_yaml(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lab.parent)
    with pytest.raises(SystemExit) as stop:
        main(["init", str(lab)])
    assert not stop.value.code
    said = capsys.readouterr().out
    assert "hsf-finetune check --config-dir my_conf datasets=lab" in said
    settings = compose("finetune", ["datasets=lab"], "my_conf")
    assert len(discover(settings.datasets).cases) == 4


def test_a_bare_file_name_is_written_there_with_the_way_to_use_it(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.parent)
    target = find_output_file(lab, Path("mine.yaml"))
    assert describe_folder(lab, Path("mine.yaml")) == Path("mine.yaml")
    first, *rest = target.commands()
    assert first == "mkdir -p my_conf/datasets && mv mine.yaml my_conf/datasets/"
    Path("my_conf/datasets").mkdir(parents=True)
    Path("mine.yaml").rename("my_conf/datasets/mine.yaml")
    options = "--config-dir my_conf datasets=mine"
    assert rest[0] == f"hsf-finetune check {options}"
    assert rest[-1] == f"hsf-finetune finetune {options} finetuning.pretrained=PATH"
    assert len(discover(compose("finetune", ["datasets=mine"], "my_conf").datasets).cases) == 4


@pytest.mark.parametrize("name", ["données #1 (ü), 2024", "it's {a} [b]~^=$x", "null", "-7"])
def test_the_printed_command_runs_as_it_is(
    name: str, lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lab.parent)
    named = lab.rename(lab.parent / name).resolve()
    for output in (None, Path(f"conf {name}/datasets/x.yaml")):
        describe_folder(named, output)
        command = capsys.readouterr().out.partition("use it:\n")[2].splitlines()[0]
        with pytest.raises(SystemExit) as stop:
            main(words_of(command, lab.parent))
        assert not stop.value.code, command
        assert "4 cases of 4 subjects" in capsys.readouterr().out


def words_of(command: str, folder: Path) -> list[str]:
    """What a shell hands to `hsf-finetune`, in whose place a program prints it."""
    program = folder / "bin" / "hsf-finetune"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        env={**os.environ, "PATH": path},
        capture_output=True,
        check=True,
        text=True,
    )
    return ended.stdout.split("\0")[:-1]


def test_files_that_are_not_used_are_listed_with_a_remedy_and_check_repeats_it(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nifti(lab / "q_seg.nii.gz", blobs())
    nifti(lab / "z_im.nii.gz")
    (lab / "r_im.nii.gz").symlink_to("/nowhere/r_im.nii.gz")
    (lab / "s_im.mnc").touch()
    file = describe_folder(lab, lab.parent / "datasets" / "x.yaml")
    said = capsys.readouterr().out
    assert "not used, a label without an image: q_seg.nii.gz" in said
    assert "to use a label that is left out: " in said
    assert "not used, a link that leads to no file: r_im.nii.gz" in said
    assert "not used, .mnc files are not read: convert them to NIfTI: s_im.mnc" in said
    assert "not used, an image without a label: z_im.nii.gz" in said
    assert check([str(file), f"datasets.output_path={lab.parent}/out"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    for what, name in (
        ("a label without an image", "q_seg.nii.gz"),
        ("a link that leads to no file", "r_im.nii.gz"),
        (".mnc files are not read", "s_im.mnc"),
    ):
        assert f"warned: {what} file: {lab.resolve()}/{name}" in said
    assert "not used, matches exclude: z_im.nii.gz: z_im.nii.gz" in said


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"background": 0, "a": 2, "b": 3}, "also names 3 b, which no label file contains"),
        ({"a": 0, "b": 1}, "names 0 'a', yet 0 is background"),
    ],
)
def test_a_table_that_is_off_by_one_is_said(
    labels: dict[str, int], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        nifti(tmp_path / "imagesTr" / f"p{n}.nii.gz")
        nifti(tmp_path / "labelsTr" / f"p{n}.nii.gz", blobs())
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    describe_folder(tmp_path, tmp_path / "x.yaml")
    said = capsys.readouterr().out
    assert text in said
    assert "off by one" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset.json", "[" * 100_000),
        ("dataset.json", json.dumps({"labels": {"a": 10**4000}})),
        ("dseg.tsv", "index\tname\n" + "9" * 400 + "\tx\n"),
        ("dseg.tsv", "index\tname\n1\t" + "x" * 200_000),
        ("dseg.tsv", "\t".join(f"c{n}" for n in range(100_000))),
    ],
)
def test_hostile_tables_of_names_are_no_tables(lab: Path, name: str, content: str) -> None:
    (lab / name).write_text(content)
    assert written(lab)["labels_names"] == {1: "label_1", 2: "label_2"}


def test_nothing_is_overwritten_without_force(lab: Path) -> None:
    file = describe_folder(lab, lab.parent / "mine.yaml")
    file.write_text("precious")
    with pytest.raises(OutputError, match="--force"):
        describe_folder(lab, file)
    assert file.read_text() == "precious"
    describe_folder(lab, file, force=True)
    assert "patterns:" in file.read_text()


@pytest.mark.parametrize("name", ["my data.yaml", "a=b.yaml", "mine.yml", "mine", "1.yaml"])
def test_names_that_hydra_cannot_choose(lab: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        describe_folder(lab, lab.parent / name)


def test_folders_with_nothing_usable_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        describe_folder(tmp_path / "none")
    (tmp_path / "a.mnc").touch()
    with pytest.raises(DataError, match=r"1 \.mnc files(.|\n)*mri_convert"):
        describe_folder(tmp_path)
    nifti(tmp_path / "scan1.nii.gz")
    with pytest.raises(DataError, match=r"1 volume: scan1(.|\n)*imagesTr(.|\n)*BIDS(.|\n)*dseg"):
        describe_folder(tmp_path, tmp_path / "x.yaml")
    assert not (tmp_path / "x.yaml").exists()


def test_a_pair_without_the_entity_of_bids_is_told_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sub-01", "sub-02", "pilot"):
        pair(tmp_path / "lab", f"{name}_T2w.nii.gz", f"{name}_dseg.nii.gz")
    describe_folder(tmp_path / "lab", tmp_path / "conf" / "datasets" / "lab.yaml")
    said = capsys.readouterr().out
    assert "2 cases of 2 subjects" in said
    line = next(line for line in said.splitlines() if "pilot_T2w" in line)
    assert "sub-NAME_T2w with sub-NAME_dseg" in line
    assert "pilot_dseg" in line


def test_several_datasets_in_one_folder(tmp_path: Path) -> None:
    for name in ("Dataset001_A", "Dataset002_B"):
        nifti(tmp_path / name / "imagesTr" / "a.nii.gz")
        nifti(tmp_path / name / "labelsTr" / "a.nii.gz", blobs())
    with pytest.raises(DataError, match=r"several datasets(.|\n)*hsf-finetune init"):
        describe_folder(tmp_path, tmp_path / "x.yaml")


def test_cases_that_cannot_be_used_are_left_out_and_said(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("shifted", "other_shape", "half", "cut")
    for name in names:
        pair(lab, f"{name}_im.nii.gz", f"{name}_seg.nii.gz")
    moved = AFFINE.copy()
    moved[0, 3] += 10
    nifti(lab / "shifted_seg.nii.gz", blobs(), moved)
    nifti(lab / "other_shape_seg.nii.gz", blobs((9, 9, 9)))
    nifti(lab / "half_seg.nii.gz", blobs().astype(np.float32) * 0.5)
    whole = (lab / "cut_seg.nii.gz").read_bytes()
    (lab / "cut_seg.nii.gz").write_bytes(whole[: len(whole) // 2])
    cohort = written(lab)
    assert {str(glob) for glob in cohort["exclude"]} == {f"{name}_im.nii.gz" for name in names}  # type: ignore[attr-defined]
    settings = compose("finetune", ["datasets=mine"], lab.parent / "conf")
    assert len(discover(settings.datasets).cases) == 4
    said = capsys.readouterr().out
    for reason in ("another grid", "another shape", "whole numbers", "damaged"):
        assert reason in said


def test_values_with_gaps_are_numbered_and_names_are_made_distinct(lab: Path) -> None:
    for n in range(4):
        label = blobs().astype(np.int16)
        label[label == 1] = 203
        label[0, 0, 0] = 7004
        nifti(lab / f"p{n}_seg.nii.gz", label)
    (lab / "lut.txt").write_text("203 Same 0 0 0 0\n7004 Same 0 0 0 0\n")
    cohort = written(lab)
    assert cohort["labels"] == {2: 1, 203: 2, 7004: 3}
    assert cohort["labels_names"] == {1: "label_2", 2: "Same", 3: "Same_7004"}


def test_the_ignored_label_of_nnunet(tmp_path: Path) -> None:
    for n in range(3):
        nifti(tmp_path / "lab" / "imagesTr" / f"a{n}_0000.nii.gz")
        nifti(tmp_path / "lab" / "labelsTr" / f"a{n}.nii.gz", blobs())
    labels = {"background": 0, "DG": 1, "ignore": 2}
    (tmp_path / "lab" / "dataset.json").write_text(json.dumps({"labels": labels}))
    cohort = written(tmp_path / "lab")
    assert cohort["ignore"] == [2]
    assert cohort["labels_names"] == {1: "DG"}


def test_labels_of_two_sides_in_two_files_are_not_taken_for_whole_ones(tmp_path: Path) -> None:
    for n in range(2):
        nifti(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_T1w.nii.gz")
        for side in ("L", "R"):
            nifti(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_hemi-{side}_dseg.nii.gz", blobs())
    with pytest.raises(DataError, match="one of 2 labels of sub-0_T1w; join them"):
        describe_folder(tmp_path, tmp_path / "x.yaml")


def test_of_two_raters_the_more_diligent_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        anat = tmp_path / "lab" / f"sub-{n}" / "anat"
        nifti(anat / f"sub-{n}_T1w.nii.gz")
        for rater in ("ann", "bob")[: 2 if n else 1]:
            nifti(anat / f"sub-{n}_desc-{rater}_dseg.nii.gz", blobs())
    cohort = written(tmp_path / "lab")
    series = cohort["patterns"]["T1w"]  # type: ignore[index]
    assert series["label"] == "sub-*_desc-ann_dseg.nii.gz"
    assert "several labels" in capsys.readouterr().out


@pytest.mark.parametrize("attributes", [{"voxel_size": [0.5, 0.5, 2.0]}, {}])
def test_hdf5_without_a_known_geometry_is_marked(
    tmp_path: Path, attributes: dict[str, list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        hdf5(tmp_path / "lab" / f"v{n}_im.h5", {"main": scan(n)}, attributes)
        hdf5(tmp_path / "lab" / f"v{n}_seg.h5", {"main": blobs()}, attributes)
    cohort = written(tmp_path / "lab")
    assert cohort["spacing_mm"] == attributes.get("voxel_size", [1, 1, 1])
    assert cohort["patterns"] == {"images": {"mri": "*_im.h5", "label": "*_seg.h5", "key": "main"}}
    assert ("voxel_size" if attributes else "a guess") in capsys.readouterr().out


def test_damaged_scans_and_odd_names_cause_no_traceback(lab: Path) -> None:
    (lab / "broken_im.nii.gz").write_bytes(gzip.compress(b"nothing"))
    nifti(lab / "broken_seg.nii.gz", blobs())
    (lab / "broken.h5").write_bytes(b"nothing")
    pair(lab, "odd [1] $\u007bx\u007d_im.nii.gz", "odd [1] $\u007bx\u007d_seg.nii.gz")
    four = nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.float32), AFFINE)
    nib.save(four, lab / "four_im.nii.gz")
    nifti(lab / "four_seg.nii.gz", blobs((4, 4, 4)))
    file = describe_folder(lab, lab.parent / "conf" / "datasets" / "mine.yaml")
    settings = compose("finetune", ["datasets=mine"], file.parent.parent)
    names = {case.images[0].path.name for case in discover(settings.datasets).cases}
    assert {f"p{n}_im.nii.gz" for n in range(4)} <= names
    assert not names & {"broken_im.nii.gz", "four_im.nii.gz"}
    assert any(name.startswith("odd") for name in names)


def test_dicom_folders_are_scans_and_a_table_gives_colours(tmp_path: Path) -> None:
    for number, name in enumerate(("s1", "s2", "s3")):
        dicom(tmp_path / "lab" / name / "t2", scan(number).astype(np.int16))
        itk(tmp_path / "lab" / name / "t2_seg.nrrd", blobs())
    (tmp_path / "lab" / "dseg.tsv").write_text(
        "index\tname\tcolor\n1\tDG\t#0A0B0C\n2\tCA1\t#FF0000\n"
    )
    file = describe_folder(tmp_path / "lab", tmp_path / "conf" / "datasets" / "lab.yaml")
    (described,) = yaml.safe_load(file.read_text())["datasets"].values()
    assert described["lut"] == "dseg.tsv"
    data = compose("finetune", ["datasets=lab"], tmp_path / "conf").datasets
    cohort = discover(data)
    assert [case.images[0].path.name for case in cohort.cases] == ["t2"] * 3
    assert len({case.subject for case in cohort.cases}) == 3
    assert training_colours(data, cohort) == {"DG": (10, 11, 12), "CA1": (255, 0, 0)}


def test_folders_behind_links_are_described_and_found(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    for n in range(4):
        pair(tmp_path / "archive", f"{n}/sub-{n}_T2w.nii.gz", f"{n}/sub-{n}_dseg.nii.gz")
        (lab / f"sub-{n}").symlink_to(tmp_path / "archive" / f"{n}")
    nifti(tmp_path / "archive" / "3" / "other.nii.gz", scan(9))
    file = describe_folder(lab, tmp_path / "conf" / "datasets" / "lab.yaml")
    cohort = discover(compose("finetune", [f"datasets={file.stem}"], tmp_path / "conf").datasets)
    assert [case.subject for case in cohort.cases] == [f"sub-{n}" for n in range(4)]
    assert [entry.path.name for entry in cohort.ledger() if not entry.case] == ["other.nii.gz"]
