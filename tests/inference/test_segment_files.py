"""Many scans: which files, where to, what is skipped, and what one bad file does to the rest."""

from __future__ import annotations

import os
import threading
from copy import copy
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.inference.model_card import NO_GEOMETRY, Hdf5Geometry, common_geometry
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_jobs import JobResult, SegmentOptions, plan_jobs
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.system.errors import DataError, OutputError
from tests.closeness import assert_equal_up_to_rounding
from tests.conftest import SHAPE, oblique_affine, save_nifti, tiny_case


@pytest.fixture(scope="module")
def model(source_run: Path) -> Predictor:
    return Predictor.load(source_run, device="cpu")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of a NIfTI and an HDF5 scan, with a note beside them."""
    folder = tmp_path / "scans"
    save_nifti(folder / "sub-01" / "t2.nii.gz", tiny_case(1)[0])
    (folder / "notes.txt").write_text("not a volume")
    with h5py.File(folder / "vol.h5", "w") as file:
        file["main"] = tiny_case(2)[0]
        file["main"].attrs["affine"] = oblique_affine()
    return folder


def segment(
    model: Predictor, *scans: str | Path, to: Path, overwrite: bool = False
) -> list[JobResult]:
    results = segment_files(model, scans, to, SegmentOptions(overwrite=overwrite))
    assert tuple(result.job for result in results) == plan_jobs(scans, to).jobs
    return results


def files(folder: Path) -> list[str]:
    """The segmentations, without the tables of names and colours."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".txt")
    return sorted(path.relative_to(folder).as_posix() for path in found)


def test_a_folder_keeps_its_structure_and_formats(
    model: Predictor, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert [r.status for r in segment(model, scans, to=out)] == ["written", "written"]
    assert files(out) == ["sub-01/t2.nii.gz", "vol.h5"]
    for job in plan_jobs([str(scans)], out).jobs:
        scan, labels = read_volume(job.channels[0]), read_volume(VolumeRef(job.output))
        assert labels.array.shape == scan.array.shape
        assert_equal_up_to_rounding(labels.affine, scan.affine, precision=np.float32)
        assert set(np.unique(labels.array)) <= {0, 10}


def test_what_exists_is_skipped_unless_it_is_to_be_redone(
    model: Predictor, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "sub-01").mkdir(parents=True)
    (out / "sub-01" / "t2.nii.gz").write_text("old")
    assert [r.status for r in segment(model, scans, to=out)] == ["skipped", "written"]
    assert (out / "sub-01" / "t2.nii.gz").read_text() == "old"
    assert [r.status for r in segment(model, scans, to=out, overwrite=True)] == ["written"] * 2
    assert nib.load(out / "sub-01" / "t2.nii.gz").shape == SHAPE


def test_a_damaged_file_does_not_stop_the_others(
    model: Predictor, scans: Path, tmp_path: Path
) -> None:
    good = (scans / "sub-01" / "t2.nii.gz").read_bytes()
    (scans / "a_truncated.nii.gz").write_bytes(good[: len(good) // 2])
    (scans / "b_garbage.h5").write_bytes(b"no HDF5")
    save_nifti(scans / "c_series.nii.gz", np.zeros((*SHAPE, 3), np.float32))
    results = segment(model, scans, to=tmp_path / "out")
    statuses = {r.job.output.name: r.status for r in results}
    assert statuses == {
        "a_truncated.nii.gz": "failed",
        "b_garbage.h5": "failed",
        "c_series.nii.gz": "failed",
        "t2.nii.gz": "written",
        "vol.h5": "written",
    }
    for result in results:
        if result.status == "failed":
            assert result.job.output.name in str(result.error)
            assert "exclude:" not in str(result.error), "a scan has no dataset"
    assert files(tmp_path / "out") == ["sub-01/t2.nii.gz", "vol.h5"]


def test_an_interruption_leaves_whole_files(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save_nifti(tmp_path / f"{n}.nii.gz", tiny_case(n)[0]) for n in range(4)]
    segment_one, seen = model.segment, []

    def interrupt(volumes: list[Volume]) -> Segmentation:
        seen.append(volumes)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return segment_one(volumes)

    monkeypatch.setattr(model, "segment", interrupt)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        segment_files(model, paths, tmp_path / "out")
    assert threading.active_count() == threads
    written = files(tmp_path / "out")
    assert written[:1] == ["0.nii.gz"]
    assert set(written) <= {"0.nii.gz", "1.nii.gz"}
    for name in written:
        assert nib.load(tmp_path / "out" / name).get_fdata().shape == SHAPE


def test_a_disk_that_is_full_stops_all(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save_nifti(tmp_path / f"{n}.nii.gz", tiny_case(1)[0]) for n in range(4)]
    seen = []

    def fail(*given: object) -> None:
        seen.append(given)
        raise OutputError("cannot write the result")

    monkeypatch.setattr("hsf_finetune.inference.segment_files.write_outputs", fail)
    with pytest.raises(OutputError, match="cannot write"):
        segment_files(model, paths, tmp_path / "out")
    assert len(seen) < 3


def test_a_result_folder_among_the_scans_is_no_input(model: Predictor, scans: Path) -> None:
    for _ in range(2):
        assert len(segment(model, scans, to=scans / "out", overwrite=True)) == 2


def test_channels_are_joined_by_commas_be_they_files_or_folders(tmp_path: Path) -> None:
    for name in ("t1", "t2"):
        for subject in ("a", "b"):
            save_nifti(tmp_path / name / f"{subject}.nii.gz", tiny_case(1)[0])
    out, one, two = tmp_path / "out", tmp_path / "t1", tmp_path / "t2"
    (job,) = plan_jobs([f"{one / 'a.nii.gz'},{two / 'b.nii.gz'}"], out).jobs
    assert [ref.path for ref in job.channels] == [one / "a.nii.gz", two / "b.nii.gz"]
    assert job.output == out / "a.nii.gz"
    jobs = plan_jobs([f"{one},{two}"], out).jobs
    assert [[ref.path.parent.name for ref in job.channels] for job in jobs] == [["t1", "t2"]] * 2
    assert [job.output.name for job in jobs] == ["a.nii.gz", "b.nii.gz"]
    (two / "b.nii.gz").unlink()
    with pytest.raises(DataError, match=r"lacks a channel[\s\S]*t2/b\.nii\.gz"):
        plan_jobs([f"{one},{two}"], out)
    with pytest.raises(DataError, match="a file and a folder"):
        plan_jobs([f"{one / 'a.nii.gz'},{two}"], out)


def test_a_comma_in_a_file_name_is_part_of_it(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a,b.nii.gz", tiny_case(1)[0])
    (job,) = plan_jobs([str(path)], tmp_path / "out").jobs
    assert [ref.path for ref in job.channels] == [path]


def test_no_scan_is_ever_overwritten(scans: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in scans.rglob("*") if p.is_file()}
    link = tmp_path / "link"
    os.symlink(scans, link)
    scan = scans / "sub-01" / "t2.nii.gz"
    other = save_nifti(tmp_path / "t2.nii.gz", tiny_case(3)[0])
    for inputs, out in (
        ([scan], scan.parent),
        ([scan], link / "sub-01"),
        ([scans], scans),
        ([scans], link),
        ([other, scans / "vol.h5", scan], scan.parent),
    ):
        with pytest.raises(OutputError, match="replace a scan"):
            plan_jobs([str(i) for i in inputs], out)
    assert {p: p.read_bytes() for p in scans.rglob("*") if p.is_file()} == before


def test_two_scans_never_share_a_result(tmp_path: Path) -> None:
    paths = [save_nifti(tmp_path / n / "t2.nii.gz", tiny_case(1)[0]) for n in ("a", "b")]
    with pytest.raises(OutputError, match="two scans"):
        plan_jobs([str(p) for p in paths], tmp_path / "out")
    assert len(plan_jobs([str(tmp_path)], tmp_path / "out").jobs) == 2


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"no such file or folder[\s\S]*missing\.nii"):
        plan_jobs([str(tmp_path / "missing.nii")], tmp_path / "out")
    with pytest.raises(DataError, match=r"in \S+: empty/, file"):
        plan_jobs([str(tmp_path / "missing.nii")], tmp_path / "out")
    with pytest.raises(DataError, match="holds no scan"):
        plan_jobs([str(tmp_path / "empty")], tmp_path / "out")
    with pytest.raises(OutputError, match="-o is a file"):
        plan_jobs([str(tmp_path / "empty")], tmp_path / "file")


def test_the_key_is_for_hdf5_only(scans: Path, tmp_path: Path) -> None:
    plan = plan_jobs([str(scans)], tmp_path / "out", SegmentOptions(key="main"))
    assert {job.output.name: job.channels[0].key for job in plan.jobs} == {
        "t2.nii.gz": None,
        "vol.h5": "main",
    }


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_labels_and_other_formats_in_a_folder_are_named(
    model: Predictor, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_nifti(scans / "sub-01" / "t2_dseg.nii.gz", tiny_case(1)[1])
    for name in ("a.mnc", "b.mnc", "c.gipl"):
        (scans / name).touch()
    (scans / "d.nii.gz").symlink_to("/nowhere/d.nii.gz")
    results = segment(model, scans, to=tmp_path / "out")
    status = {r.job.output.name: r.status for r in results}
    assert status == {
        **dict.fromkeys(["a.mnc", "b.mnc", "c.gipl", "d.nii.gz"], "failed"),
        **dict.fromkeys(["t2.nii.gz", "vol.h5"], "written"),
    }
    said = printed(capsys)
    assert "not segmented, named like a label: t2_dseg.nii.gz" in said
    assert "failed: 3 scans: not a volume that can be read" in said
    assert "a link to /nowhere/d.nii.gz" in said
    for part in ("a.mnc", "found .gipl", "mri_convert", "2 written", "4 failed"):
        assert part in said


def test_a_pattern_chooses_among_the_files(model: Predictor, scans: Path, tmp_path: Path) -> None:
    options = SegmentOptions(pattern="*.h5")
    (result,) = segment_files(model, [scans], tmp_path / "out", options)
    assert result.job.output == tmp_path / "out" / "vol.h5"


def test_unusual_scans_are_told_together(
    model: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(8):
        save_nifti(tmp_path / "scans" / f"{n}.nii.gz", tiny_case(n)[0], np.diag([3.0, 3, 3, 1]))
    results = segment(model, tmp_path / "scans", to=tmp_path / "out")
    for result in results:
        assert result.status == "written"
        assert "scan/spacing" in [warning.kind for warning in result.warnings]
    said = printed(capsys)
    assert said.count("the voxel size is unlike that of the training data") == 1
    assert "8 scans: the voxel size" in said
    assert "found 3 x 3 x 3 mm expected 0.8 x 1 x 1.2 mm" in said
    assert "... and 3 more" in said


def test_strict_refuses_unusual_scans_and_no_others(model: Predictor, tmp_path: Path) -> None:
    usual = save_nifti(tmp_path / "usual.nii.gz", tiny_case(1)[0])
    other = save_nifti(tmp_path / "other.nii.gz", tiny_case(1)[0], np.diag([3.0, 3, 3, 1]))
    out = tmp_path / "out"
    good, bad = segment_files(model, [usual, other], out, SegmentOptions(strict=True))
    assert good.status == "written", good.error
    assert bad.status == "failed"
    assert "--strict" in str(bad.error)
    assert "the voxel size is unlike that of the training data" in str(bad.error)
    assert files(out) == ["usual.nii.gz"]


def test_the_command_refuses_with_exit_code_1(
    source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_nifti(tmp_path / "other.nii.gz", tiny_case(1)[0], np.diag([3.0, 3, 3, 1]))
    arguments = ["predict", str(source_run), str(other), "-o", str(tmp_path / "out")]
    for more, code in ([], 0), (["--strict", "--overwrite"], 1):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, *more])
        assert caught.value.code == code
        assert "the voxel size is unlike that of the training data" in printed(capsys)


def test_fill_values_are_told(model: Predictor, tmp_path: Path) -> None:
    image = tiny_case(1)[0]
    image[:3, :5] = -32768
    path = save_nifti(tmp_path / "a.nii.gz", image)
    (result,) = segment(model, path, to=tmp_path / "out")
    (remark,) = (w for w in result.warnings if w.kind == "content/fill value")
    assert "-32768 in 3.91% of the voxels" in remark.found


def test_hdf5_without_a_voxel_size_has_that_of_the_training_data(
    model: Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "bare.h5"
    with h5py.File(path, "w") as file:
        file["main"] = tiny_case(1)[0]

    def spacing(model: Predictor, options: SegmentOptions) -> list[float]:
        (result,) = segment_files(model, [path], tmp_path / "out", options)
        if result.error:
            raise result.error
        with h5py.File(tmp_path / "out" / "bare.h5") as file:
            sizes: list[float] = file["label"].attrs["spacing_mm"].tolist()
            return sizes

    with pytest.raises(DataError, match=r"how large its voxels are[\s\S]*--spacing"):
        spacing(model, SegmentOptions())
    again = SegmentOptions(spacing_mm=(1.0, 2.0, 3.0), overwrite=True)
    assert spacing(model, again) == [1, 2, 3]
    known = copy(model)
    known.card = replace(model.card, hdf5=Hdf5Geometry((0.5, 0.6, 0.7)))
    assert spacing(known, SegmentOptions(overwrite=True)) == [0.5, 0.6, 0.7]
    assert spacing(known, again) == [1, 2, 3]
    assert known.predict(path).scan.spacing_mm == (0.5, 0.6, 0.7)
    assert known.predict(path, spacing_mm=[1, 2, 3]).scan.spacing_mm == (1, 2, 3)


def test_the_card_has_the_voxel_size_that_all_datasets_give() -> None:
    def dataset(**more: object) -> DatasetSettings:
        given = {"path": ".", "patterns": {"a": {"mri": "*.h5"}}, "labels_names": {1: "a"}}
        return DatasetSettings.model_validate({**given, **more})

    one, two = dataset(spacing_mm=[1, 2, 3]), dataset(spacing_mm=[1, 1, 1])
    assert common_geometry([one, one]) == Hdf5Geometry((1, 2, 3))
    assert common_geometry([one, two]) == common_geometry([one, dataset()]) == NO_GEOMETRY
    assert common_geometry([dataset(affine=np.eye(4).tolist())]).affine is not None
