"""What predict writes in each format, read back by the format's own library."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from hsf_finetune.cli.main import main
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.describe.label_names import read_name_table
from hsf_finetune.inference.formats.output_formats import OutputChoice
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_jobs import JobResult, SegmentOptions
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.system.errors import ConfigError, OutputError
from tests.conftest import oblique_affine
from tests.data.writing import dicom, nifti
from tests.export.models import random_model

IMAGE = np.random.default_rng(0).normal(300, 100, (13, 18, 11)).astype(np.int16)
VALUES = {"background": 0, "left hippocampus": 20, "CA1": 10}
COLOURS = {"CA1": (1, 2, 3)}


@pytest.fixture(scope="module")
def model() -> Predictor:
    made = random_model()
    made.card = replace(made.card, classes=tuple(VALUES), label_values=VALUES, colours=COLOURS)
    return made


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return nifti(tmp_path / "raw" / "sub-01_hemi-L_T2w.nii.gz", IMAGE, oblique_affine())


def predict(
    model: Predictor, scan: Path, *formats: str, overwrite: bool = False, **more: object
) -> list[JobResult]:
    choice = OutputChoice(formats, **more)  # type: ignore[arg-type]
    output = scan.parent.parent / "out"
    return segment_files(model, [scan], output, SegmentOptions(overwrite=overwrite, outputs=choice))


def files(folder: Path) -> list[str]:
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(path.as_posix() for path in found if not path.name.startswith("."))


def test_tables_of_names_and_colours_lie_beside_nifti(model: Predictor, scan: Path) -> None:
    predict(model, scan)
    out = scan.parent.parent / "out"
    assert files(out) == ["labels_freesurfer.txt", "labels_itksnap.txt", scan.name]
    for name, kind in (("labels_freesurfer.txt", "Free"), ("labels_itksnap.txt", "ITK-SNAP")):
        table = read_name_table(out / name)
        assert table is not None
        assert table.kind.startswith(kind)
        names = {value: text.replace("-", " ") for value, text in table.names.items() if value}
        assert names == {10: "CA1", 20: "left hippocampus"}
        assert table.colours[10] == (1, 2, 3)
        assert table.colours[20] == (0xE6, 0x9F, 0)  # the first colour of the palette


def test_seg_nrrd_keeps_voxels_geometry_and_names(model: Predictor, scan: Path) -> None:
    predict(model, scan, "seg.nrrd")
    path = scan.parent.parent / "out" / "sub-01_hemi-L_T2w.seg.nrrd"
    back = read_volume(VolumeRef(path))
    expected = model.predict(scan)
    np.testing.assert_array_equal(back.array, expected.labels)
    np.testing.assert_allclose(back.affine, expected.affine, rtol=0, atol=1e-12)
    image = sitk.ReadImage(str(path))
    assert image.GetMetaData("Segment0_Name") == "left hippocampus"
    assert image.GetMetaData("Segment1_LabelValue") == "10"
    assert "~SCT^5366008^Hippocampus~SCT^7771000^Left~" in image.GetMetaData("Segment0_Tags")
    red, *_ = map(float, image.GetMetaData("Segment1_Color").split())
    assert red == pytest.approx(1 / 255, rel=1e-4)
    other = expected.save(scan.parent / "saved.seg.nrrd")
    assert other.read_bytes() == path.read_bytes()


def test_bids_names_and_tables(model: Predictor, scan: Path) -> None:
    predict(model, scan, "bids", probabilities=True)
    out = scan.parent.parent / "out"
    stem = "sub-01/anat/sub-01_space-T2w_desc-finetunedL"
    assert files(out) == [
        "dataset_description.json", "dseg.tsv", f"{stem}_dseg.json", f"{stem}_dseg.nii.gz",
        f"{stem}_probseg.json", f"{stem}_probseg.nii.gz",
    ]  # fmt: skip
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "hsf_finetune"
    assert about["SourceDatasets"] == [{"URL": scan.parent.resolve().as_uri()}]
    sidecar = json.loads((out / f"{stem}_dseg.json").read_text())
    assert sidecar["Sources"] == [f"bids:source1:{scan.name}"]
    rows = list(csv.DictReader((out / "dseg.tsv").open(), delimiter="\t"))
    assert rows == [
        {"index": "10", "name": "CA1", "color": "#010203"},
        {"index": "20", "name": "left hippocampus", "color": "#E69F00"},
    ]
    other = nifti(scan.parent / "other" / "sub-02_ses-1_run-2_T1w.nii.gz", IMAGE)
    (other.parent / "dataset_description.json").write_text("{}")
    options = SegmentOptions(outputs=OutputChoice(("bids",)))
    segment_files(model, [other], out, options)
    assert "sub-02/ses-1/anat/sub-02_ses-1_run-2_space-T1w_desc-finetuned_dseg.nii.gz" in files(out)
    about = json.loads((out / "dataset_description.json").read_text())
    assert [*about["DatasetLinks"]] == ["source1", "source2"]


def test_probabilities_are_one_nifti(model: Predictor, scan: Path) -> None:
    predict(model, scan, probabilities=True)
    image = nib.load(scan.parent.parent / "out" / "sub-01_hemi-L_T2w_probabilities.nii.gz")
    expected = np.moveaxis(model.predict(scan).probabilities, 0, -1)
    assert image.get_data_dtype() == np.uint16
    np.testing.assert_allclose(image.get_fdata(), expected, rtol=0, atol=1e-5)
    assert b"2 CA1" in image.header.extensions[0].get_content()


def test_dicom_seg_belongs_to_its_series(model: Predictor, tmp_path: Path) -> None:
    series = dicom(tmp_path / "raw" / "t2", IMAGE, oblique_affine())
    predict(model, series, "dicom-seg", "nifti")
    path = tmp_path / "out" / "dicom-seg" / "t2.seg.dcm"
    made = highdicom.seg.segread(path)
    source = pydicom.dcmread(next(series.iterdir()))
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert made[name] == source[name]
    assert made.SegmentationType == "BINARY"
    first, second = made.SegmentSequence
    assert (first.SegmentLabel, second.SegmentLabel) == ("left hippocampus", "CA1")
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("5366008", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    volume = made.get_volume(combine_segments=True)
    labels = read_volume(VolumeRef(tmp_path / "out" / "nifti" / "t2.nii.gz"))
    values = np.array([0, 20, 10])[volume.array.astype(int)]
    to_lps = np.diag([-1.0, -1, 1, 1])
    # Each voxel of the one has the place and the value of a voxel of the other.
    where = np.argwhere(values)
    places = np.c_[where, np.ones(len(where))] @ (to_lps @ volume.affine).T
    voxels = np.rint(places @ np.linalg.inv(labels.affine).T)[:, :3].astype(int)
    np.testing.assert_array_equal(labels.array[tuple(voxels.T)], values[tuple(where.T)])
    assert len(where) == np.count_nonzero(labels.array)
    np.testing.assert_allclose(
        voxels @ labels.affine[:3, :3].T + labels.affine[:3, 3], places[:, :3], atol=1e-4
    )


def test_several_formats_get_a_folder_each_and_only_missing_files_are_written(
    model: Predictor, scan: Path
) -> None:
    predict(model, scan, "nifti", "bids")
    out = scan.parent.parent / "out"
    assert {path.split("/")[0] for path in files(out)} == {"nifti", "bids"}
    kept = out / "nifti" / scan.name
    os.utime(kept, (1, 1))
    (lost,) = out.rglob("*_dseg.nii.gz")
    lost.unlink()
    assert predict(model, scan, "nifti", "bids")[0].status == "written"
    assert lost.exists()
    assert kept.stat().st_mtime == 1
    assert predict(model, scan, "nifti", "bids")[0].status == "skipped"
    predict(model, scan, "nifti", "bids", overwrite=True)
    assert kept.stat().st_mtime > 1
    assert nib.load(kept).shape == IMAGE.shape


def test_nothing_is_written_beside_another_segmentation(model: Predictor, scan: Path) -> None:
    predict(model, scan)
    out = scan.parent.parent / "out"
    labels = nib.load(out / scan.name)
    other = np.roll(np.asarray(labels.dataobj), 3, axis=0)
    nib.save(nib.Nifti1Image(other, labels.affine, labels.header), out / scan.name)
    before = files(out)
    [result] = predict(model, scan, probabilities=True)
    assert result.status == "failed"
    assert "holds another segmentation of this scan" in str(result.error)
    assert files(out) == before
    predict(model, scan, overwrite=True)
    [result] = predict(model, scan, probabilities=True)
    assert result.status == "written"
    assert len(files(out)) == len(before) + 1


def test_labels_of_another_model_are_not_mixed_in(model: Predictor, scan: Path) -> None:
    predict(model, scan)
    other = random_model()
    with pytest.raises(OutputError, match=r"other labels or colours[\s\S]*labels_itksnap"):
        predict(other, scan)
    predict(other, scan, overwrite=True)
    (scan.parent.parent / "out" / "dataset_description.json").write_text('{"Name": "raw"}')
    with pytest.raises(OutputError, match="another BIDS dataset"):
        predict(model, scan, "bids")


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("scan.nii.gz", "bids", r"no name of BIDS[\s\S]*ln -s"),
        ("sub-01.nii.gz", "bids", "no name of BIDS"),
        ("sub-01_T2w.nii.gz", "dicom-seg", "belongs to a DICOM series"),
    ],
)
def test_a_scan_that_a_format_cannot_hold_is_refused_and_others_are_written(
    model: Predictor, tmp_path: Path, name: str, form: str, message: str
) -> None:
    scan = nifti(tmp_path / "raw" / name, IMAGE)
    fitting = tmp_path / "raw" / "sub-02_T2w.nii.gz"
    if form == "bids":
        nifti(fitting, IMAGE, oblique_affine())
    else:
        fitting = dicom(tmp_path / "raw" / "t2", IMAGE, oblique_affine())
    codes = tmp_path / "codes.csv"
    codes.write_text("class,code,scheme,meaning\n" + "".join(f"{n},1,99LAB,x\n" for n in VALUES))
    choice = SegmentOptions(outputs=OutputChoice((form,), terminology=codes))
    refused, written = segment_files(model, [scan, fitting], tmp_path / "out", choice)
    assert refused.status == "failed"
    assert re.search(message, str(refused.error))
    assert written.status == "written"
    assert written.job.output.exists()


def test_dicom_seg_without_codes_or_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = dicom(tmp_path / "raw" / "t2", IMAGE, oblique_affine())
    with pytest.raises(ConfigError, match=r"anterior, posterior[\s\S]*--terminology"):
        predict(random_model(), series, "dicom-seg")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigError, match=r"pip install 'hsf-finetune\[formats\]'"):
        predict(random_model(), series, "dicom-seg")


def test_the_command_names_the_formats(
    source_run: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scan.parent.parent / "out"
    arguments = ["predict", str(source_run), str(scan), "-o", str(out)]
    with pytest.raises(SystemExit):
        main([*arguments, "--format", "nifti,analyze"])
    assert "no format is called 'analyze'; there are nifti, seg.nrrd" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--format", "nifti,bids", "--format", "seg.nrrd"])
    assert caught.value.code == 0
    assert {path.name for path in out.iterdir()} == {"nifti", "bids", "seg.nrrd"}
