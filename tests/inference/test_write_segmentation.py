"""A segmentation is written in the form its scan came in, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.inference.write_segmentation import write_segmentation
from hsf_finetune.system.errors import OutputError
from tests.conftest import SHAPE, oblique_affine, tiny_case

LABELS = tiny_case(1)[1]


def written(folder: Path, image: Any, name: str = "scan.nii.gz") -> tuple[Any, Any]:
    """A scan as it comes back from disk, and its segmentation."""
    nib.save(image, folder / name)
    write_segmentation(folder / "out" / name, LABELS, read_volume(VolumeRef(folder / name)))
    return nib.load(folder / name), nib.load(folder / "out" / name)


def forms(image: Any, sform: int, qform: int) -> Any:
    image.set_sform(oblique_affine() if sform else None, sform)
    image.set_qform(oblique_affine() if qform else None, qform)
    return image


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (4, 1), (2, 0), (0, 3), (0, 0)])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_geometry_is_the_scans(
    tmp_path: Path, kind: Any, sform: int, qform: int, name: str
) -> None:
    image = kind(tiny_case(1)[0], oblique_affine())
    scan, segmentation = written(tmp_path, forms(image, sform, qform), name)
    assert type(segmentation) is type(scan)
    assert segmentation.shape == scan.shape
    np.testing.assert_array_equal(segmentation.affine, scan.affine)
    for get in ("get_sform", "get_qform"):
        matrix, code = getattr(segmentation, get)(coded=True)
        expected, expected_code = getattr(scan, get)(coded=True)
        assert code == expected_code
        np.testing.assert_array_equal(matrix, expected)
    np.testing.assert_array_equal(segmentation.header.get_zooms(), scan.header.get_zooms())
    np.testing.assert_array_equal(np.asarray(segmentation.dataobj), LABELS)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_what_else_the_header_says_is_kept(tmp_path: Path, kind: Any, name: str) -> None:
    image = kind(tiny_case(1)[0], oblique_affine())
    header = image.header
    header["aux_file"], header["toffset"], header["xyzt_units"] = b"lut.txt", 3, 10
    header["cal_min"], header["cal_max"] = 10, 900
    header.set_intent(5, (), name="T2 value")
    for code, content in (("comment", b"hippocampus 7T"), (44, b'{"EchoTime": 0.05}')):
        header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    scan, segmentation = written(tmp_path, image, name)
    found = segmentation.header
    assert len(found.extensions) == 2
    for one, other in zip(found.extensions, scan.header.extensions, strict=True):
        assert (one.get_code(), one.get_content()) == (other.get_code(), other.get_content())
    for field in ("aux_file", "toffset", "xyzt_units", "intent_code", "intent_name"):
        assert found[field] == scan.header[field], field
    assert (found["cal_min"], found["cal_max"]) == (0, 0)
    np.testing.assert_array_equal(np.asarray(segmentation.dataobj), LABELS)


@pytest.mark.parametrize("about", [b"", b"T2 TSE, 7 T", b"x" * 80])
def test_the_description_says_what_it_is_and_of_what(tmp_path: Path, about: bytes) -> None:
    image = nib.Nifti1Image(tiny_case(1)[0], oblique_affine())
    image.header["descrip"] = about
    found = bytes(written(tmp_path, image)[1].header["descrip"])
    assert found.startswith(b"hsf_finetune segmentation")
    assert about[:50] in found


@pytest.mark.parametrize("axes", [1, 2])
def test_trailing_axes_of_one_are_kept(tmp_path: Path, axes: int) -> None:
    array = tiny_case(1)[0].reshape(*SHAPE, *[1] * axes)
    scan, segmentation = written(tmp_path, nib.Nifti1Image(array, oblique_affine()))
    assert segmentation.shape == scan.shape == (*SHAPE, *[1] * axes)
    np.testing.assert_array_equal(np.asarray(segmentation.dataobj).reshape(SHAPE), LABELS)


def test_a_scaled_scan_does_not_scale_its_segmentation(tmp_path: Path) -> None:
    image = nib.Nifti1Image((tiny_case(1)[0] * 10).astype(np.int16), oblique_affine())
    image.header.set_slope_inter(0.25, -3)
    _, segmentation = written(tmp_path, image)
    assert segmentation.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(segmentation.get_fdata(), LABELS)


def test_large_values_need_two_bytes(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(tiny_case(1)[0], oblique_affine()), path)
    wide = LABELS.astype(np.uint16) * 600
    write_segmentation(tmp_path / "out.nii.gz", wide, read_volume(VolumeRef(path)))
    back = nib.load(tmp_path / "out.nii.gz")
    assert back.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(back.dataobj), wide)


def test_hdf5_stays_hdf5_with_its_attributes(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.attrs["affine"] = oblique_affine()
        file.create_dataset("a/image", data=tiny_case(1)[0][..., None])
        file["a/image"].attrs["subject"] = "01"
    scan = read_volume(VolumeRef(path, "a/image"))
    write_segmentation(tmp_path / "out.h5", LABELS, scan)
    back = read_volume(VolumeRef(tmp_path / "out.h5"))
    assert back.stored_shape == (*SHAPE, 1)
    np.testing.assert_array_equal(back.array, LABELS)
    np.testing.assert_array_equal(back.affine, oblique_affine())
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["label"].attrs["subject"] == "01"


@pytest.mark.parametrize(
    ("key", "kept"), [("image", {"names", "pair", "DIMENSION_LABELS"}), ("scale", set())]
)
def test_hdf5_attributes_that_refer_to_other_datasets_are_left_out(
    tmp_path: Path, key: str, kept: set[str]
) -> None:
    path, pairs = tmp_path / "scan.h5", np.dtype([("to", h5py.ref_dtype), ("axis", np.int32)])
    with h5py.File(path, "w") as file:
        file.attrs["affine"] = oblique_affine()
        for name in ("image", "scale"):
            file.create_dataset(name, data=tiny_case(1)[0])
        image, scale = file["image"], file["scale"]
        scale.make_scale("x in mm")
        image.dims[0].attach_scale(scale)
        image.dims[0].label = "x"
        image.attrs["one"] = scale.ref
        image.attrs["some"] = np.array([(scale.ref, 1)], pairs)
        image.attrs["names"], image.attrs["pair"] = ["a", "b"], np.array([1.0, 2.0])
    write_segmentation(tmp_path / "out.h5", LABELS, read_volume(VolumeRef(path, key)))
    with h5py.File(tmp_path / "out.h5") as file:
        assert {*file["label"].attrs} == {"affine", "spacing_mm", *kept}


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.h5"])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(tiny_case(1)[0], oblique_affine()), path)
    scan = read_volume(VolumeRef(path))
    (tmp_path / "file").write_text("old")
    with pytest.raises(OutputError, match="cannot write the result"):
        write_segmentation(tmp_path / "file" / name, LABELS, scan)
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "scan.nii.gz"]
