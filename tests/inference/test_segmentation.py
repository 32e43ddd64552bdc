"""Scans as a notebook has them give one segmentation, which saves and shows itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from hsf_finetune.config.settings import Preprocessing, UNetSettings
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.build import build
from hsf_finetune.system.console import format_size
from hsf_finetune.system.errors import DataError, OutputError, UserError
from tests.closeness import assert_equal_up_to_rounding
from tests.conftest import SHAPE, oblique_affine, save_nifti, tiny_case

TINY = UNetSettings(channels=[4, 8], strides=[2], features=4, num_res_units=1)
VALUES = {"background": 0, "anterior": 10, "posterior": 20}


def make_model(in_channels: int = 1, spacing_mm: tuple[float, ...] | None = None) -> Predictor:
    """A network with random weights."""
    torch.manual_seed(0)
    how = Preprocessing(spacing_mm=spacing_mm, window_vox=(64, 64, 64))
    card = ModelCard(tuple(VALUES), VALUES, TINY, in_channels, how)
    return Predictor(build(TINY, in_channels, len(VALUES)), card, torch.device("cpu"))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return save_nifti(tmp_path / "scan.nii.gz", tiny_case(1)[0])


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["t2"] = tiny_case(1)[0]
        file["t2"].attrs["affine"] = oblique_affine()
        file["t2"].attrs["scanner"] = "7T"
        file["other"] = np.zeros(3)
    return tmp_path / "scan.h5"


def test_every_form_of_a_scan_gives_the_same_voxels(scan: Path, hdf5: Path) -> None:
    model = make_model()
    image = nib.load(scan)
    expected = model.predict(scan).labels
    assert len(np.unique(expected)) > 1
    forms: dict[str, Any] = {
        "text": str(scan),
        "list": [scan],
        "reference": VolumeRef(scan),
        "image": image,
        "image in memory": nib.Nifti1Image(tiny_case(1)[0], image.affine),
        "other image": nib.MGHImage(tiny_case(1)[0], image.affine.astype(np.float32)),
        "array": (tiny_case(1)[0], image.affine),
        "array with a fourth axis": (tiny_case(1)[0][..., None], image.affine.tolist()),
        "tensor": (torch.from_numpy(tiny_case(1)[0]), image.affine),
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(model.predict(form).labels, expected, err_msg=name)
    np.testing.assert_array_equal(model.predict(hdf5, key="t2").labels, expected)


def test_channels_may_be_of_mixed_forms(scan: Path) -> None:
    model = make_model(in_channels=2)
    second = tiny_case(2)[0]
    other = save_nifti(scan.with_name("other.nii.gz"), second)
    expected = model.predict([scan, other]).labels
    affine = nib.load(other).affine
    for channels in ([str(scan), (second, affine)], (scan, nib.load(other))):
        np.testing.assert_array_equal(model.predict(channels).labels, expected)
    moved = affine + np.diag([0, 0, 0.5, 0])
    with pytest.raises(DataError, match="different grids"):
        model.predict([scan, (second, moved)])
    with pytest.raises(DataError, match="differ in shape"):
        model.predict([scan, (second[1:], affine)])


IMAGE = tiny_case(1)[0]
EYE = np.eye(4)


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ("no.nii.gz", ["no such file", "no.nii.gz"]),
        ("t1.nii.gz,t2.nii.gz", ["no such file", "predict(['t1.nii.gz', 't2.nii.gz'])"]),
        (Path(__file__).parent, ["folder", "hsf-finetune predict RUN"]),
        (Path(__file__), ["not a volume", ".nii.gz"]),
        (IMAGE, ["array without an affine", "predict((array, affine))"]),
        (3.5, ["not a scan", "float"]),
        ((IMAGE[0], EYE), ["(24, 16)", "(X, Y, Z)"]),
        ((IMAGE[None].repeat(2, 0), EYE), ["(2, 16, 24, 16)", "per channel"]),
        ((IMAGE, np.eye(3)), ["affine", "4x4", "predict((array, affine))"]),
        ((IMAGE, np.zeros((4, 4))), ["affine", "invertible"]),
        ((IMAGE, None), ["affine"]),
        ((IMAGE.astype(str), EYE), ["<U32", "real numbers"]),
        ((IMAGE + 1j, EYE), ["complex64", "real numbers"]),
        ((np.where(IMAGE > 0, np.nan, IMAGE), EYE), ["NaN", "channel 1 (array)"]),
        (nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), EYE), ["(4, 4, 4, 2)", "in memory"]),
        ([IMAGE, EYE], ["number of input channels", "2", "1"]),
        ([], ["number of input channels"]),
    ],
)
def test_wrong_scans_say_what_to_write(wrong: Any, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make_model().predict(wrong)
    for part in parts:
        assert part in str(caught.value)


def test_hdf5_needs_the_name_of_one_dataset(hdf5: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)several datasets.*predict --key DATASET"):
        make_model().predict(hdf5)
    with pytest.raises(DataError, match="no dataset 't1'"):
        make_model().predict(hdf5, key="t1")


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 0.9, 1.5)])
def test_labels_are_the_classes_of_highest_probability(
    scan: Path, spacing_mm: tuple[float, ...] | None
) -> None:
    found = make_model(spacing_mm=spacing_mm).predict(scan)
    assert found.classes == tuple(VALUES)
    assert found.probabilities.shape == (3, *SHAPE)
    assert found.probabilities.dtype == np.float32
    assert found.probabilities is found.probabilities
    total = found.probabilities.sum(axis=0)
    assert_equal_up_to_rounding(total, np.ones_like(total))
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0) * 10, found.labels)


def test_volumes_are_in_mm3(scan: Path) -> None:
    found = make_model().predict(scan)
    assert list(found.volumes_mm3) == ["anterior", "posterior"]
    for name, volume_mm3 in found.volumes_mm3.items():
        voxels = int((found.labels == VALUES[name]).sum())
        assert volume_mm3 == pytest.approx(voxels * 0.8 * 1.0 * 1.2, rel=1e-6)
    assert sum(found.volumes_mm3.values()) > 0


def test_a_saved_segmentation_has_the_scans_header(scan: Path, tmp_path: Path) -> None:
    image = nib.load(scan)
    image.header["xyzt_units"] = 10
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        given = kind(np.asarray(image.dataobj), image.affine, image.header)
        given.set_sform(image.affine, 4)
        found = make_model().predict(given)
        saved = nib.load(found.save(str(tmp_path / f"{kind.__name__}.nii.gz")))
        assert type(saved) is kind
        np.testing.assert_array_equal(np.asarray(saved.dataobj), found.labels)
        np.testing.assert_array_equal(saved.affine, given.affine)
        assert int(saved.header["sform_code"]) == 4
        assert int(saved.header["qform_code"]) == int(given.header["qform_code"])
        assert saved.header["xyzt_units"] == 10


def test_arrays_and_hdf5_are_saved_in_either_format(hdf5: Path, tmp_path: Path) -> None:
    model = make_model()
    for number, found in enumerate(
        (model.predict((IMAGE, oblique_affine())), model.predict(hdf5, key="t2"))
    ):
        saved = nib.load(found.save(tmp_path / f"{number}.nii"))
        np.testing.assert_array_equal(np.asarray(saved.dataobj), found.labels)
        assert_equal_up_to_rounding(saved.affine, oblique_affine(), precision=np.float32)
        with h5py.File(found.save(tmp_path / f"{number}.h5")) as file:
            np.testing.assert_array_equal(file["label"][()], found.labels)
            np.testing.assert_allclose(file["label"].attrs["affine"], oblique_affine())
    with h5py.File(tmp_path / "1.h5") as file:
        assert file["label"].attrs["scanner"] == "7T"


def test_nothing_is_overwritten_unasked(scan: Path, tmp_path: Path) -> None:
    found = make_model().predict(scan)
    before = scan.read_bytes()
    with pytest.raises(OutputError, match="replace its scan"):
        found.save(scan, overwrite=True)
    path = found.save(tmp_path / "new" / "seg.nii.gz")
    with pytest.raises(OutputError, match=r"exists[\s\S]*overwrite=True"):
        found.save(path)
    assert found.save(path, overwrite=True) == path
    with pytest.raises(OutputError, match=r"\.nii\.gz"):
        found.save(tmp_path / "seg.mgz")
    assert scan.read_bytes() == before


def test_it_shows_a_picture_and_its_volumes(scan: Path) -> None:
    found = make_model().predict(scan)
    page = found._repr_html_()
    assert '<img src="data:image/png;base64,' in page
    for part in ("anterior", "20", format_size(found.volumes_mm3["posterior"])):
        assert part in page
    assert "anterior" in str(found)
    assert not found.warnings


def test_a_scan_with_an_unusual_header_is_segmented_with_a_warning(scan: Path) -> None:
    image = nib.load(scan)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    found = make_model().predict(image)
    (warning,) = found.warnings
    assert warning.kind == "geometry/no orientation"
    assert "left and right are a guess" in found._repr_html_()


def test_a_model_says_what_it_segments() -> None:
    expected = "Predictor(unet, 2 channels -> background, anterior, posterior, cpu)"
    assert repr(make_model(in_channels=2)) == expected
