"""NRRD and MetaImage: read as they lie in space, and refused where ITK would take anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef, read_shape, read_volume
from hsf_finetune.system.errors import DataError
from tests.conftest import oblique_affine
from tests.data.writing import SHAPE, itk, scan

SUFFIXES = ["nrrd", "nhdr", "mha", "mhd"]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_comes_as_it_lies_in_its_file(
    tmp_path: Path, suffix: str, compressed: bool
) -> None:
    path = itk(tmp_path / f"a.{suffix}", scan(), oblique_affine(), compressed)
    read = read_volume(VolumeRef(path))
    assert np.array_equal(read.array, scan())
    assert np.allclose(read.affine, oblique_affine(), rtol=0, atol=1e-12)
    shape, affine = read_shape(VolumeRef(path))
    assert shape == SHAPE
    assert np.array_equal(affine, read.affine)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_missing_and_wrong_bytes_are_noticed(tmp_path: Path, suffix: str, compressed: bool) -> None:
    path = itk(tmp_path / f"a.{suffix}", scan(), compressed=compressed)
    content = path.read_bytes()
    for missing in (1, 9, 300, len(content)):
        path.write_bytes(content[:-missing])
        with pytest.raises(DataError):
            read_volume(VolumeRef(path))
    if compressed:
        for at in (-1, -30):
            wrong = bytearray(content)
            wrong[at] ^= 1
            path.write_bytes(wrong)
            with pytest.raises(DataError, match="damaged or incomplete"):
                read_volume(VolumeRef(path))


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        ("nhdr", "data file: a.raw.gz", "data file: ../a.raw.gz"),
        ("nhdr", "data file: a.raw.gz", "data file: /etc/hostname"),
        ("nhdr", "data file: a.raw.gz", "data file: a%03d.raw 1 8 1"),
        ("mhd", "ElementDataFile = a.zraw", "ElementDataFile = LIST"),
    ],
)
def test_voxels_elsewhere_are_not_read(tmp_path: Path, suffix: str, old: str, new: str) -> None:
    path = itk(tmp_path / f"a.{suffix}", scan())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match="in another folder, or in several files"):
        read_volume(VolumeRef(path))


def test_an_affine_is_never_made_up(tmp_path: Path) -> None:
    path = itk(tmp_path / "a.nrrd", scan(), compressed=False)
    path.write_bytes(path.read_bytes().replace(b"space: left-posterior-superior\n", b""))
    with pytest.raises(DataError, match="where its axes point"):
        read_volume(VolumeRef(path))


def test_a_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = itk(tmp_path / "a.nrrd", scan(), compressed=False)
    header = path.read_bytes().replace(b"sizes: 10 9 8", b"sizes: 9000 9000 8000")
    path.write_bytes(header)
    with pytest.raises(DataError, match="too large to be read"):
        read_volume(VolumeRef(path))


def test_vectors_are_no_volume(tmp_path: Path) -> None:
    path = itk(tmp_path / "a.mha", scan(), compressed=False)
    text = path.read_bytes().replace(
        b"DimSize = 10 9 8", b"DimSize = 5 9 8\nElementNumberOfChannels = 2"
    )
    path.write_bytes(text)
    with pytest.raises(DataError, match="not three-dimensional"):
        read_volume(VolumeRef(path))
