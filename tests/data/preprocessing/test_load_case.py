"""Preprocessed cases: every channel normalised, on one grid with the label."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.load_case import load_case, prepare_channels
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, make_volume, read_volume
from hsf_finetune.system.errors import DataError
from tests.closeness import assert_equal_up_to_rounding
from tests.data.writing import AFFINE, PROTOCOL, SHAPE, blobs, nifti, scan


def z_normalise(image: torch.Tensor) -> torch.Tensor:
    wide = image.double()
    return ((wide - wide.mean()) / wide.std()).float()


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
    coarse = load_case(case, Preprocessing(spacing_mm=(1.6, 1.8, 2.2)))
    assert coarse.image.shape == (1, 5, 4, 4)
    assert coarse.label.shape == (5, 4, 4)
    assert coarse.label.dtype == torch.uint8


def volumes(*arrays: Any) -> list[Volume]:
    return [make_volume(array, AFFINE, VolumeRef(Path("a"))) for array in arrays]


@given(st.tuples(*[st.tuples(st.integers(0, 8), st.integers(0, 8))] * 3), st.floats(-500, 500))
@settings(deadline=None)
def test_an_empty_margin_changes_nothing(widths: Any, value: float) -> None:
    for how in (Preprocessing(), Preprocessing(spacing_mm=(1.3, 1.0, 0.7))):
        alone, _ = prepare_channels(volumes(scan(1), scan(2)), how)
        wide = [np.pad(scan(n), widths, constant_values=np.float32(value)) for n in (1, 2)]
        inside, grid = prepare_channels(volumes(*wide), how)
        assert torch.equal(inside, alone)
        rows = np.pad(blobs(), widths)
        back = grid.classes_to_file(torch.ones((1, *grid.shape)))
        assert back.shape == rows.shape
        if how.spacing_mm is None:
            assert torch.equal(grid.label_to_network(rows), torch.from_numpy(blobs()))


def test_without_a_margin_the_voxels_are_those_of_version_0_1_0() -> None:
    image = scan().astype(np.int16)
    for how in (Preprocessing(), Preprocessing(padding="end", crop="none")):
        found, _ = prepare_channels(volumes(image), how)
        assert torch.equal(found[0], z_normalise(torch.from_numpy(image.astype(np.float32))))


def test_version_0_1_0_kept_margins() -> None:
    image = np.pad(scan(), 3)
    found, grid = prepare_channels(volumes(image), Preprocessing(crop="none"))
    assert grid.shape == image.shape
    assert torch.equal(found[0], z_normalise(torch.from_numpy(image)))


@pytest.mark.parametrize("crop", ["margins", "none"])
@pytest.mark.parametrize("value", [-32768.0, 65535.0, 1e20, -1024.0])
def test_fill_values_are_outside_of_the_statistics(
    value: float, crop: Literal["margins", "none"]
) -> None:
    image = scan()
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[:3, :4], mask[-1, -1, -1] = True, True
    rest = torch.from_numpy(image[~mask]).double()
    found, _ = prepare_channels(
        volumes(np.where(mask, np.float32(value), image)), Preprocessing(crop=crop)
    )
    assert found[0][torch.from_numpy(mask)].abs().max() == 0
    expected = (torch.from_numpy(image).double() - rest.mean()) / rest.std()
    inside = torch.from_numpy(~mask)
    assert_equal_up_to_rounding(found[0][inside], expected[inside], precision=found.dtype)


@pytest.mark.parametrize("planes", [1, 2, 3])
@pytest.mark.parametrize("value", [-32768.0, 65535.0, 1e20, -1024.0])
def test_planes_of_a_fill_value_change_nothing(value: float, planes: int) -> None:
    image = np.pad(scan(), ((planes, 0), (0, planes), (0, 0)), constant_values=value)
    found, _ = prepare_channels(volumes(image))
    assert torch.equal(found, prepare_channels(volumes(scan()))[0])


def test_planes_of_several_fill_values_are_a_margin() -> None:
    image = np.pad(scan(), ((2, 0), (0, 0), (0, 0)), constant_values=-32768)
    image[0, :4] = 65535
    found, _ = prepare_channels(volumes(image))
    assert torch.equal(found, prepare_channels(volumes(scan()))[0])


def test_fill_values_are_outside_after_resampling_too() -> None:
    image = scan()
    image[:3, :4] = -32768
    found, _ = prepare_channels(volumes(image), Preprocessing(spacing_mm=(0.5, 0.5, 0.5)))
    assert found.abs().max() < 6
