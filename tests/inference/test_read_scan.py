"""One scan in every format: the same segmentation, voxel for voxel and place for place."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.inference.segment_files import segment_files
from tests.conftest import oblique_affine
from tests.data.writing import dicom, hdf5, itk, nifti
from tests.export.models import random_model

PIR = np.array([[0, 0, 0.8, -3], [-0.9, 0, 0, 5], [0, -1.1, 0, 6], [0, 0, 0, 1]])
FILES = ("a.nii", "b.mgz", "c.mgh", "d.nrrd", "e.nhdr", "f.mha", "g.mhd", "h.h5", "i")


def write_all(folder: Path, image: npt.NDArray[np.int16], affine: npt.NDArray[np.float64]) -> None:
    nifti(folder / "a.nii", image, affine)
    nib.save(nib.MGHImage(image, affine), folder / "b.mgz")
    nib.save(nib.MGHImage(image, affine), folder / "c.mgh")
    for name in FILES[3:7]:
        itk(folder / name, image, affine)
    hdf5(folder / "h.h5", {"main": image}, {"affine": affine})
    dicom(folder / "i", image, affine)


@pytest.mark.parametrize("affine", [oblique_affine(), PIR], ids=["oblique", "PIR"])
def test_the_format_changes_nothing(tmp_path: Path, affine: npt.NDArray[np.float64]) -> None:
    image = np.random.default_rng(0).normal(300, 100, (13, 18, 11)).astype(np.int16)
    write_all(tmp_path / "scans", image, affine)
    model = random_model()
    results = segment_files(model, [tmp_path / "scans"], tmp_path / "out")
    assert {r.status for r in results} == {"written"}, [str(r.error) for r in results if r.error]
    names = [result.job.output.name for result in results]
    assert sorted(names) == [
        "a.nii", *(f"{letter}.nii.gz" for letter in "bcdefg"), "h.h5", "i.nii.gz",
    ]  # fmt: skip
    expected = model.predict((image, affine)).labels
    assert len(np.unique(expected)) == 3
    for result in results:
        found = read_volume(VolumeRef(result.job.output))
        np.testing.assert_array_equal(found.array, expected)
        np.testing.assert_allclose(found.affine, affine, rtol=0, atol=1e-5)
    single = model.predict(tmp_path / "scans" / "i")
    np.testing.assert_array_equal(single.labels, expected)


def test_arrays_and_images_may_change_after_the_prediction() -> None:
    voxels = np.random.default_rng(0).normal(300, 100, (13, 18, 11)).astype(np.float32)
    given, affine, model = voxels.copy(), oblique_affine(), random_model()
    image = nib.Nifti1Image(voxels.copy(), affine.copy())
    results = model.predict((given, affine)), model.predict(image)
    given[:], affine[:3, 3] = 0, 0
    np.asarray(image.dataobj)[:] = 0
    image.affine[:3, 3] = 0
    image.header["descrip"] = "another one"
    for result in results:
        chosen = np.array([*result.label_values.values()])[result.probabilities.argmax(axis=0)]
        np.testing.assert_array_equal(chosen, result.labels)
        np.testing.assert_array_equal(result.affine, oblique_affine())
    header = results[1].scan.header
    assert header is not None
    assert header["descrip"].item() == b""
