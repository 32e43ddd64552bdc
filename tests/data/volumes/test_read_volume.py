"""Reading NIfTI and HDF5: what cannot be right is refused with a clear message."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef, read_shape, read_volume, stem
from hsf_finetune.system.errors import DataError
from tests.data.writing import AFFINE, SHAPE, blobs, hdf5, nifti, scan


def volume(path: Path, **ref: Any) -> Any:
    return read_volume(VolumeRef(path, **ref))


def with_forms(path: Path, sform: Any, qform: Any) -> Path:
    image = nib.Nifti1Image(scan(), AFFINE)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return path


def moved(millimetres: float) -> Any:
    affine = AFFINE.copy()
    affine[0, 3] += millimetres
    return affine


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_a_nifti_comes_as_it_lies_in_its_file(tmp_path: Path, name: str) -> None:
    read = volume(nifti(tmp_path / name))
    assert np.array_equal(read.array, scan())
    assert np.allclose(read.affine, AFFINE)
    assert np.allclose(read.spacing_mm, (0.8, 0.9, 1.1))
    assert read.stored_shape == SHAPE
    shape, affine = read_shape(read.ref)
    assert shape == SHAPE
    assert np.array_equal(affine, read.affine)


@pytest.mark.parametrize("at", [-6, -1, -30, 1000])
def test_a_single_wrong_byte_of_a_gz_is_noticed(tmp_path: Path, at: int) -> None:
    path = nifti(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or incomplete"):
        volume(path)


@pytest.mark.parametrize("missing", [1, 4, 8, 9])
def test_a_gz_without_its_last_bytes_is_noticed(tmp_path: Path, missing: int) -> None:
    path = nifti(tmp_path / "a.nii.gz", blobs())
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError, match="damaged or incomplete"):
        volume(path)


@pytest.mark.parametrize("damage", ["truncated", "random", "empty", "gzip of nothing", "text"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.h5"])
def test_damaged_files_are_named(tmp_path: Path, damage: str, name: str) -> None:
    path = tmp_path / name
    whole = (hdf5(path, {"main": scan()}) if name == "a.h5" else nifti(path)).read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) * 2 // 3],
            "random": np.random.default_rng(0).bytes(3000),
            "empty": b"",
            "gzip of nothing": gzip.compress(b""),
            "text": b"version https://git-lfs.github.com/spec/v1\n" * 20,
        }[damage]
    )
    with pytest.raises(DataError, match="damaged or incomplete") as caught:
        volume(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_other_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file[\s\S]*a\.nii"):
        volume(tmp_path / "a.nii")
    (tmp_path / "a.mnc").touch()
    with pytest.raises(DataError, match=r"not a volume that can be read[\s\S]*\.nii\.gz"):
        volume(tmp_path / "a.mnc")


@pytest.mark.parametrize("shape", [(10, 9), (10, 9, 8, 2), (10, 9, 8, 1, 3)])
def test_only_three_dimensions_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="not three-dimensional") as caught:
        volume(nifti(tmp_path / "a.nii.gz", np.ones(shape, np.float32)))
    assert str(shape) in str(caught.value)


def test_trailing_axes_of_length_1_are_dropped_and_remembered(tmp_path: Path) -> None:
    read = volume(nifti(tmp_path / "a.nii.gz", scan()[..., None, None]))
    assert np.array_equal(read.array, scan())
    assert read.stored_shape[:4] == (*SHAPE, 1)


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for array in (rgb, scan().astype(np.complex64)):
        with pytest.raises(DataError, match="voxels are not numbers"):
            volume(nifti(tmp_path / "a.nii.gz", array))


def test_sform_and_qform_must_agree_but_for_rounding(tmp_path: Path) -> None:
    assert volume(with_forms(tmp_path / "a.nii.gz", AFFINE, moved(0.01))).array.shape == SHAPE
    with pytest.raises(DataError, match=r"sform and qform[\s\S]*by 1 mm"):
        volume(with_forms(tmp_path / "b.nii.gz", AFFINE, moved(1)))
    turned = np.diag([-1, 1, 1, 1]) @ AFFINE
    with pytest.raises(DataError, match="sform and qform"):
        read_shape(VolumeRef(with_forms(tmp_path / "c.nii.gz", AFFINE, turned)))


def test_a_form_without_a_code_does_not_count(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan(), AFFINE)
    image.set_sform(AFFINE, 2)
    image.set_qform(moved(30), 0)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.allclose(volume(tmp_path / "a.nii.gz").affine, AFFINE)


@pytest.mark.parametrize("field", ["srow_x", "quatern"])
def test_broken_affines_are_refused(tmp_path: Path, field: str) -> None:
    image = nib.Nifti1Image(scan(), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    if field == "srow_x":
        image.header["srow_x"] = [np.nan, 0, 0, 0]
    else:
        for name in "bcd":
            image.header[f"quatern_{name}"] = 5
    (tmp_path / "a.nii").write_bytes(
        image.header.binaryblock + b"\0" * 4 + scan().tobytes(order="F")
    )
    with pytest.raises(DataError, match=r"affine|damaged"):
        volume(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.b", "a"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".h5", ".hdf5", ".NII.GZ"])
def test_the_stem_is_without_the_suffix(name: str, suffix: str) -> None:
    assert stem(Path("x") / f"{name}{suffix}") == name


def test_h5_files_are_closed_after_reading(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", {"main": scan()}, {"spacing_mm": [1, 1, 1]})
    volume(path)
    with h5py.File(path, "a") as file:
        assert list(file) == ["main"]


def bomb(path: Path, kind: str) -> Path:
    """A small file that claims, or unpacks to, far more than a volume."""
    whole = nib.Nifti1Image(scan(), AFFINE)
    content = bytearray(whole.to_bytes())
    if kind == "unwritten HDF5":
        with h5py.File(path, "w") as file:
            file.create_dataset("image", shape=(10_000,) * 3, dtype="f8", chunks=(10,) * 3)
        return path
    if kind == "huge shape":
        content[42:48] = np.array([32_000] * 3, "<i2").tobytes()
    if kind == "large shape":
        content[42:48] = np.array([800, 800, 800], "<i2").tobytes()
    if kind == "far voxels":
        content[108:112] = np.float32(2e9).tobytes()
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(content)
        for _ in range(0 if "shape" in kind else 8):
            file.write(bytes(64 << 20))
    return path


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        ("unwritten HDF5", "a.h5", "too large to be read"),
        ("huge shape", "a.nii.gz", "too large to be read"),
        ("large shape", "a.nii.gz", "too large to be read"),
        ("long tail", "a.nii.gz", "goes on behind"),
        ("far voxels", "a.nii.gz", "voxels begin at byte"),
    ],
)
def test_a_file_that_unpacks_to_gigabytes_is_refused_before_it_does(
    tmp_path: Path, kind: str, name: str, what: str
) -> None:
    resource = pytest.importorskip("resource", reason="peak memory is read on Unix")
    path = bomb(tmp_path / name, kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=what) as caught:
        volume(path)
    assert str(path) in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_voxels_of_another_file_are_not_read(tmp_path: Path) -> None:
    secret = hdf5(tmp_path / "secret.h5", {"main": scan()})
    (tmp_path / "raw").write_bytes(scan().tobytes())
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["spacing_mm"] = [1, 1, 1]
        file["link"] = h5py.ExternalLink(str(secret), "main")
        file["folder"] = h5py.ExternalLink(str(secret), "/")
        file["soft"] = h5py.SoftLink("/folder")
        file["round"] = h5py.SoftLink("/round")
        file.create_dataset("stored", SHAPE, "f4", external=[(str(tmp_path / "raw"), 0, 2880)])
        layout = h5py.VirtualLayout(SHAPE, "f4")
        layout[:] = h5py.VirtualSource(str(secret), "main", SHAPE)
        file.create_virtual_dataset("virtual", layout)
    for key in ("link", "folder/main", "soft/main", "stored", "virtual"):
        for read in (read_volume, read_shape):
            with pytest.raises(DataError, match="lies in another file"):
                read(VolumeRef(path, key))
    with pytest.raises(DataError, match="has no dataset 'round'"):
        volume(path, key="round")
