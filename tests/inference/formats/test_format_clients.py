"""Outputs of predict in the programs that they are for: BIDS' validator, 3D Slicer's reader, dciodvfy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from tests.conftest import oblique_affine
from tests.data.writing import dicom, nifti
from tests.export.test_clients import environment, run
from tests.inference.formats.test_output_formats import IMAGE

pytestmark = pytest.mark.clients

READ_SLICER = """
import json, sys, SimpleITK, slicerio
found = slicerio.read_segmentation(sys.argv[1])
image = SimpleITK.ReadImage(sys.argv[1])
assert (SimpleITK.GetArrayFromImage(image).T == found["voxels"]).all()
print(json.dumps({
    "voxels": found["voxels"].tolist(),
    "ijkToLPS": found["ijkToLPS"].tolist(),
    "segments": [[s["name"], s["labelValue"], s["color"], s["terminology"]["type"]]
                 for s in found["segments"]],
}))
"""


def predict(run_folder: Path, *arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(run_folder), *map(str, arguments)])
    assert caught.value.code == 0


def test_the_validator_of_bids_finds_no_error(source_run: Path, tmp_path: Path) -> None:
    validator = environment("FORMATS") / "bids-validator-deno"
    raw = tmp_path / "raw"
    for name in ("sub-01/anat/sub-01_hemi-L_T2w", "sub-02/ses-1/anat/sub-02_ses-1_run-1_T1w"):
        nifti(raw / f"{name}.nii.gz", IMAGE, oblique_affine())
    dicom(raw / "sourcedata" / "sub-03_acq-cor_T2w", IMAGE)
    derivatives = raw / "derivatives" / "hsf_finetune"
    predict(source_run, raw, "-o", derivatives, "--format", "bids", "--probabilities")
    assert len(list(derivatives.rglob("*_dseg.nii.gz"))) == 3
    found = json.loads(run(validator, "--format", "json", derivatives))
    issues = found["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert found["summary"]["totalFiles"] >= 14


def test_slicers_reader_finds_voxels_geometry_and_names(source_run: Path, tmp_path: Path) -> None:
    python = environment("FORMATS") / "python"
    scan = nifti(tmp_path / "t2.nii.gz", IMAGE, oblique_affine())
    codes = tmp_path / "codes.csv"
    codes.write_text("class,code,scheme,meaning\nblob,1,99LAB,region\n")
    predict(source_run, scan, "-o", tmp_path / "out", "--format", "nifti,seg.nrrd",
            "--terminology", codes)  # fmt: skip
    found = json.loads(run(python, "-c", READ_SLICER, tmp_path / "out/seg.nrrd/t2.seg.nrrd"))
    expected = read_volume(VolumeRef(tmp_path / "out" / "nifti" / "t2.nii.gz"))
    np.testing.assert_array_equal(np.array(found["voxels"]), expected.array)
    ras = np.diag([-1.0, -1, 1, 1]) @ np.array(found["ijkToLPS"])
    np.testing.assert_allclose(ras, expected.affine, rtol=0, atol=1e-6)
    ((name, value, colour, kind),) = found["segments"]
    assert (name, value) == ("blob", 10)
    np.testing.assert_allclose(colour, np.array([0xE6, 0x9F, 0]) / 255, atol=1e-5)
    assert kind == ["99LAB", "1", "region"]


def test_dciodvfy_accepts_the_dicom_seg(source_run: Path, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("apt-get install dicom3tools")
    series = dicom(tmp_path / "t2", IMAGE, oblique_affine())
    codes = tmp_path / "codes.csv"
    codes.write_text("class,code,scheme,meaning\nblob,1,99LAB,region\n")
    predict(source_run, series, "-o", tmp_path / "out", "--format", "dicom-seg",
            "--terminology", codes)  # fmt: skip
    said = run("sh", "-c", f"dciodvfy {tmp_path}/out/t2.seg.dcm 2>&1")
    assert said.startswith("Segmentation")
    assert "Error" not in said
