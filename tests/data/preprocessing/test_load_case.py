"""Preprocessed cases: every channel normalised, on one grid with the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.load_case import (
    Preprocessing,
    load_case,
    prepare_channels,
    z_normalise,
)
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.system.errors import DataError
from tests.closeness import assert_equal_up_to_rounding
from tests.data.writing import AFFINE, PROTOCOL, SHAPE, blobs, nifti, scan


@given(st.floats(-1000, 1000), st.floats(0.01, 1000))
def test_z_normalisation_undoes_shift_and_scale(shift: float, scale: float) -> None:
    image = torch.from_numpy(scan())
    normal = z_normalise(image)
    assert normal.dtype == torch.float32
    assert_equal_up_to_rounding(normal.double().mean(), 0, precision=normal.dtype, scale=1)
    assert_equal_up_to_rounding(normal.double().std(), 1, precision=normal.dtype)
    assert_equal_up_to_rounding(z_normalise(image.double() * scale + shift), normal)


def test_every_channel_is_normalised_on_the_first_ones_grid(tmp_path: Path) -> None:
    flip = AFFINE @ np.diag([-1, 1, 1, 1])
    refs = [VolumeRef(nifti(tmp_path / f"{n}.nii.gz", scan(n) * (n + 1), flip)) for n in range(2)]
    volumes = [read_volume(ref) for ref in refs]
    image, grid = prepare_channels(volumes)
    assert image.shape == (2, *SHAPE)
    assert grid.shape == volumes[0].array.shape
    for channel, seed in zip(image, (0, 1), strict=True):
        expected = z_normalise(torch.from_numpy(scan(seed)[::-1].copy()))
        assert_equal_up_to_rounding(channel, expected)


def test_channels_and_label_on_other_grids_are_refused(tmp_path: Path) -> None:
    image = VolumeRef(nifti(tmp_path / "a.nii.gz"))
    label = VolumeRef(nifti(tmp_path / "b.nii.gz", blobs(), AFFINE @ np.diag([-1, 1, 1, 1])))
    with pytest.raises(DataError, match="different grids"):
        prepare_channels([read_volume(image), read_volume(label)])
    with pytest.raises(DataError, match="different grids"):
        load_case(Case("a", "a", "lab", (image,), label, PROTOCOL))


def test_a_case_is_its_image_and_its_label_rows(tmp_path: Path) -> None:
    image, label = nifti(tmp_path / "a.nii.gz"), nifti(tmp_path / "b.nii.gz", blobs()[..., None])
    case = Case("a", "a", "lab", (VolumeRef(image),), VolumeRef(label), PROTOCOL)
    sample = load_case(case)
    assert torch.equal(sample.label, torch.from_numpy(blobs()))
    assert torch.equal(sample.image[0], z_normalise(torch.from_numpy(scan())))
    assert np.allclose(sample.spacing_mm, (0.8, 0.9, 1.1))
    coarse = load_case(case, Preprocessing((1.6, 1.8, 2.2)))
    assert coarse.image.shape == (1, 5, 4, 4)
    assert coarse.label.shape == (5, 4, 4)
    assert coarse.label.dtype == torch.uint8
