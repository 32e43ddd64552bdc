"""Phantoms: reproducible, anatomically plausible, and the same in every file format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.ndimage import label as components

from hsf_finetune.data.phantom import write_phantoms as phantom_module
from hsf_finetune.data.phantom.phantom_image import Contrast, Phantom, make_phantom
from hsf_finetune.data.phantom.phantom_protocol import PROTOCOLS, AnnotationProtocol, ProtocolRule
from hsf_finetune.data.phantom.phantom_shape import SIDES, SUBFIELDS, Side
from hsf_finetune.data.phantom.write_phantoms import PhantomCohort, is_phantom, write_phantoms
from hsf_finetune.system.errors import ConfigError, DataError, OutputError

SHAPE_VOX, SPACING_MM = (16, 24, 16), 2.0


def write_small(folder: Path, seed: int = 0, source: int = 2, target: int = 1) -> None:
    write_phantoms(folder, PhantomCohort(seed, source, target, SHAPE_VOX, SPACING_MM))


def load(path: Path | str) -> Any:
    return nib.load(path)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def subjects() -> dict[tuple[int, str], Phantom]:
    return {(n, side): make_phantom(0, n, side, "T1w") for n in range(6) for side in SIDES}


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    write_small(tmp_path / "cohort")
    return tmp_path / "cohort"


def test_same_arguments_give_the_same_phantom() -> None:
    first, second = (make_phantom(3, 5, "left", "T2w", SHAPE_VOX, SPACING_MM) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.subfields, second.subfields)


@pytest.mark.parametrize("other", [(4, 5, "left"), (3, 6, "left"), (3, 5, "right")])
def test_seed_subject_and_side_each_change_the_anatomy(other: tuple[int, int, Side]) -> None:
    ours, theirs = (make_phantom(*a, "T1w", SHAPE_VOX, SPACING_MM) for a in ((3, 5, "left"), other))
    assert (ours.subfields != theirs.subfields).any()
    assert (ours.subfields != theirs.subfields[::-1]).any(), "not a plain mirror image either"


def test_contrasts_share_anatomy_and_grid_but_not_noise() -> None:
    t1, t2 = (make_phantom(0, 2, "right", contrast) for contrast in ("T1w", "T2w"))
    np.testing.assert_array_equal(t1.subfields, t2.subfields)
    np.testing.assert_array_equal(t1.axis_position, t2.axis_position)
    np.testing.assert_array_equal(t1.affine, t2.affine)
    # Differencing along all three axes cancels most of the anatomy. What is left of it
    # correlates negatively, as the contrasts are inverse; shared noise would be positive
    # (0.46 to 0.68 in eight subjects, where independent noise gave -0.28 to -0.03).
    noise = [np.diff(np.diff(np.diff(p.image, axis=0), axis=1), axis=2) for p in (t1, t2)]
    flat = binary_erosion(t1.subfields == SUBFIELDS["DG"])[1:, 1:, 1:]
    assert flat.sum() > 200
    assert np.corrcoef([part[flat] for part in noise])[0, 1] < 0.2


def test_anatomy_does_not_depend_on_the_voxel_size() -> None:
    coarse = make_phantom(0, 1, "left", "T1w", (21, 29, 21), 1.6)
    fine = make_phantom(0, 1, "left", "T1w", (41, 57, 41), 0.8)
    np.testing.assert_array_equal(coarse.subfields, fine.subfields[::2, ::2, ::2])


def test_every_subfield_is_there_and_in_one_piece(
    subjects: dict[tuple[int, str], Phantom],
) -> None:
    for (subject, side), phantom in subjects.items():
        for name, value in SUBFIELDS.items():
            pieces, _ = components(phantom.subfields == value, np.ones((3, 3, 3)))
            sizes = np.bincount(pieces.ravel())[1:]
            assert sizes.sum() >= 150, (subject, side, name)
            assert sizes.max() >= 0.97 * sizes.sum(), (subject, side, name)


def test_the_hippocampus_fills_a_good_part_of_the_crop_without_touching_its_sides(
    subjects: dict[tuple[int, str], Phantom],
) -> None:
    for phantom in subjects.values():
        inside = phantom.subfields > 0
        assert 0.04 < inside.mean() < 0.15
        for axis in range(3):
            assert not inside.take([0, -1], axis=axis).any()


def test_sides_are_alike_and_mirrored(subjects: dict[tuple[int, str], Phantom]) -> None:
    for n in range(6):
        left, right = subjects[n, "left"], subjects[n, "right"]
        ratio = (left.subfields > 0).sum() / (right.subfields > 0).sum()
        assert 0.75 < ratio < 1.33
        for phantom, lateral in ((left, -1), (right, 1)):
            ca1, parasub = (
                nib.affines.apply_affine(
                    phantom.affine, np.argwhere(phantom.subfields == SUBFIELDS[name])
                ).mean(axis=0)
                for name in ("CA1", "PARASUB")
            )
            assert np.sign(ca1[0]) == lateral, "a left hippocampus lies at negative x in RAS"
            assert lateral * (ca1[0] - parasub[0]) > 3, "CA1 is lateral to the parasubiculum"


def test_the_axis_runs_from_the_tail_behind_to_the_head_in_front(
    subjects: dict[tuple[int, str], Phantom],
) -> None:
    for phantom in subjects.values():
        inside = phantom.subfields > 0
        position = phantom.axis_position[inside]
        assert position.min() >= 0
        assert position.min() < 0.1
        assert 0.9 < position.max() <= 1
        assert np.corrcoef(np.argwhere(inside)[:, 1], position)[0, 1] > 0.9


@pytest.mark.parametrize("contrast", ["T1w", "T2w"])
def test_csf_and_dentate_gyrus_are_dark_in_t1_and_bright_in_t2(contrast: Contrast) -> None:
    phantom = make_phantom(0, 0, "right", contrast)
    median = {n: np.median(phantom.image[phantom.subfields == v]) for n, v in SUBFIELDS.items()}
    assert np.isfinite(phantom.image).all()
    assert phantom.image.min() >= 0
    if contrast == "T1w":
        assert np.percentile(phantom.image, 2) < 0.5 * min(median.values())
        assert median["DG"] < median["CA1"] < median["PRESUB"]
    else:
        assert np.percentile(phantom.image, 98) > 1.3 * max(median.values())
        assert median["DG"] > median["CA1"] > median["PRESUB"]


def test_coarse_is_fine_with_the_subicular_fields_merged() -> None:
    phantom = make_phantom(0, 0, "left", "T1w", SHAPE_VOX, SPACING_MM)
    fine, coarse = (
        PROTOCOLS[name].encode(phantom.subfields, phantom.axis_position)
        for name in ("fine", "coarse")
    )
    np.testing.assert_array_equal(fine, phantom.subfields)
    np.testing.assert_array_equal(coarse, np.minimum(fine, 5))
    assert PROTOCOLS["coarse"].labels_names == {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB"}


def test_a_protocol_can_mark_head_and_tail() -> None:
    everything = tuple(SUBFIELDS)
    protocol = AnnotationProtocol(
        (
            ProtocolRule(1, "BODY", everything),
            ProtocolRule(9, "TAIL", everything, (0.0, 0.25)),
            ProtocolRule(7, "HEAD", everything, (0.75, 1.0)),
        )
    )
    phantom = make_phantom(0, 0, "left", "T1w", SHAPE_VOX, SPACING_MM)
    raw = protocol.encode(phantom.subfields, phantom.axis_position)
    np.testing.assert_array_equal(raw > 0, phantom.subfields > 0)
    assert phantom.axis_position[raw == 9].max() <= 0.25
    assert phantom.axis_position[raw == 7].min() >= 0.75
    assert set(np.unique(raw)) == {0, 1, 7, 9}


def test_cohort_files(cohort: Path) -> None:
    found = files(cohort)
    assert len(found) == 2 * 2 * 2 + 1 * 2 * 5 + 1
    for name in (
        "source_T1w/sub-S02/sub-S02_hemi-right_T1w.nii.gz",
        "source_T1w/sub-S02/sub-S02_hemi-right_dseg.nii.gz",
        "target_T2w/sub-T01/sub-T01_hemi-left_T2w.nii.gz",
        "target_T2w/sub-T01/sub-T01_hemi-left_dseg.nii.gz",
        "target_T2w_hdf5/vol_T01_left_im.h5",
        "target_T2w_hdf5/vol_T01_left_seg.h5",
        "target_T2w_hdf5_single/vol_T01_left.h5",
        "phantom.json",
    ):
        assert name in found
    assert is_phantom(cohort)
    assert not is_phantom(cohort.parent)


def test_source_and_target_have_no_subject_in_common(cohort: Path) -> None:
    source, target = (
        np.asarray(load(next(cohort.glob(f"{name}/*01/*left_dseg.nii.gz"))).dataobj)
        for name in ("source_T1w", "target_T2w")
    )
    assert (source != np.minimum(target, 5)).any()


def test_geometry_is_stated_twice_and_alike(cohort: Path) -> None:
    for path in cohort.rglob("*.nii.gz"):
        nifti = load(path)
        sform, sform_code = nifti.get_sform(coded=True)
        qform, qform_code = nifti.get_qform(coded=True)
        assert (sform_code, qform_code) == (1, 1)
        np.testing.assert_array_equal(sform, qform)
        assert nib.aff2axcodes(sform) == ("R", "A", "S")
        np.testing.assert_allclose(nifti.header.get_zooms(), SPACING_MM)
        side = -1 if "hemi-left" in path.name else 1
        assert side * sform[0, 3] > 0
        dtype = np.uint8 if "dseg" in path.name else np.int16
        assert nifti.get_data_dtype() == dtype


def test_default_spacing_keeps_qform_and_sform_equal() -> None:
    affine = make_phantom(0, 0, "left", "T1w").affine
    nifti = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), affine)
    nifti.set_qform(affine, code=1)
    np.testing.assert_array_equal(nifti.get_sform(), affine)
    np.testing.assert_array_equal(nifti.get_qform(), affine)


@pytest.mark.parametrize("side", SIDES)
def test_hdf5_holds_what_nifti_holds(cohort: Path, side: str) -> None:
    stem = cohort / "target_T2w" / "sub-T01" / f"sub-T01_hemi-{side}"
    image, label = (load(f"{stem}_{kind}.nii.gz") for kind in ("T2w", "dseg"))
    pairs = cohort / "target_T2w_hdf5"
    for nifti, file_name, key in (
        (image, pairs / f"vol_T01_{side}_im.h5", "main"),
        (label, pairs / f"vol_T01_{side}_seg.h5", "main"),
        (image, cohort / "target_T2w_hdf5_single" / f"vol_T01_{side}.h5", "image"),
        (label, cohort / "target_T2w_hdf5_single" / f"vol_T01_{side}.h5", "label"),
    ):
        with h5py.File(file_name) as file:
            np.testing.assert_array_equal(file[key][()], np.asarray(nifti.dataobj))
            np.testing.assert_array_equal(file[key].attrs["affine"], nifti.affine)
            np.testing.assert_allclose(file[key].attrs["spacing_mm"], nifti.header.get_zooms())


def test_volumes_do_not_depend_on_the_size_of_the_cohort(cohort: Path, tmp_path: Path) -> None:
    write_small(tmp_path / "more", source=3, target=2)
    small, large = files(cohort), files(tmp_path / "more")
    small.pop("phantom.json")
    assert small.items() <= large.items()


def test_a_complete_cohort_is_left_alone(cohort: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    write_small(cohort)
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before


def test_an_interrupted_write_is_finished(tmp_path: Path, cohort: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 6
        if done == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(folder, PhantomCohort(0, 2, 1, SHAPE_VOX, SPACING_MM), progress=stop)
    assert not is_phantom(folder)
    assert len(files(folder)) == 4
    write_small(folder)
    assert files(folder) == files(cohort)


def test_a_deleted_file_is_made_again(cohort: Path) -> None:
    before = files(cohort)
    next(cohort.rglob("*_im.h5")).unlink()
    write_small(cohort)
    assert files(cohort) == before


def test_other_parameters_are_refused(cohort: Path) -> None:
    before = files(cohort)
    with pytest.raises(DataError, match=r"(?s)other parameters.*seed: 0.*seed: 1.*fix") as raised:
        write_small(cohort, seed=1)
    assert "source_subjects" not in str(raised.value)
    assert files(cohort) == before


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "something else"}', ""])
def test_a_foreign_description_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "phantom.json").write_text(content)
    assert not is_phantom(tmp_path)
    with pytest.raises(DataError, match=r"phantom\.json"):
        write_small(tmp_path)
    assert files(tmp_path) == {"phantom.json": content.encode()}


def test_a_cohort_of_another_version_is_refused(
    cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom_module, "VERSION", phantom_module.VERSION + 1)
    assert not is_phantom(cohort)
    with pytest.raises(DataError, match="version"):
        write_small(cohort)


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    theirs = tmp_path / "source_T1w" / "sub-S01" / "sub-S01_hemi-left_T1w.nii.gz"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"a scan")
    with pytest.raises(DataError, match=theirs.name):
        write_small(tmp_path)
    assert theirs.read_bytes() == b"a scan"
    assert not is_phantom(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the result"):
        write_small(tmp_path / "file")


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_small(tmp_path)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("wrong", [{"source": 0}, {"target": 0}, {"seed": -1}])
def test_counts_and_seed_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        write_small(tmp_path / "cohort", **wrong)
    assert not (tmp_path / "cohort").exists()


def test_the_description_says_what_the_labels_mean(cohort: Path) -> None:
    description = json.loads((cohort / "phantom.json").read_text())
    assert description["labels_names"]["source_T1w"]["5"] == "SUB"
    assert description["labels_names"]["target_T2w"]["7"] == "PARASUB"
    assert (description["seed"], description["source_subjects"]) == (0, 2)
