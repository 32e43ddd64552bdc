"""Segmentations lie on the scan's own grid, however it is stored, and carry the user's values."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from hsf_finetune.config.settings import Preprocessing, UNetSettings
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.model_card import Hdf5Geometry, ModelCard
from hsf_finetune.inference.predictor import Predictor, pick_device
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import ConfigError, DataError, WeightsError
from tests.closeness import assert_equal_up_to_rounding
from tests.conftest import SHAPE, oblique_affine, save_nifti, tiny_case

TINY = UNetSettings(channels=[4, 8], strides=[2], features=4, num_res_units=1)
CPU = torch.device("cpu")


def card(**changes: Any) -> ModelCard:
    values = {"background": 0, "anterior": 10, "posterior": 20}
    how = {k: changes.pop(k) for k in list(changes) if k in Preprocessing.model_fields}
    preprocessing = Preprocessing(**{"window_vox": (64, 64, 64), **how})
    return replace(ModelCard(tuple(values), values, TINY, 1, preprocessing), **changes)


def predictor(**changes: Any) -> Predictor:
    """A network with random weights: it says something else at every voxel."""
    made = card(**changes)
    torch.manual_seed(0)
    return Predictor(build(TINY, made.in_channels, len(made.classes)), made, CPU)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return save_nifti(tmp_path / "scan.nii.gz", tiny_case(1)[0])


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 0.9, 1.5)])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "IAL", "ASR"])
def test_the_way_a_scan_is_stored_does_not_change_what_is_found(
    scan: Path, codes: str, spacing_mm: tuple[float, ...] | None
) -> None:
    image = nib.load(scan)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    nib.save(turned, scan.with_name("turned.nii.gz"))
    model = predictor(spacing_mm=spacing_mm)
    labels = model.predict(scan).labels
    found = model.predict(scan.with_name("turned.nii.gz"))
    assert found.labels.shape == turned.shape
    assert_equal_up_to_rounding(found.affine, turned.affine, precision=np.float32)
    expected = nib.Nifti1Image(labels, image.affine).as_reoriented(turn).get_fdata()
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found.labels, expected)


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 0.9, 1.5)])
@pytest.mark.parametrize("value", [0.0, 100.0, -32768.0])
@pytest.mark.parametrize("widths", [((0, 8), (3, 0), (1, 2)), ((5, 5), (0, 0), (8, 0))])
def test_an_empty_margin_changes_nothing_of_what_is_found(
    value: float, widths: Any, spacing_mm: tuple[float, ...] | None
) -> None:
    image, model = tiny_case(1)[0], predictor(spacing_mm=spacing_mm)
    alone = model.predict((image, oblique_affine()))
    wide = np.pad(image, widths, constant_values=value)
    found = model.predict((wide, oblique_affine()))
    np.testing.assert_array_equal(found.labels, np.pad(alone.labels, widths))
    assert found.volumes_mm3 == alone.volumes_mm3
    inside = (slice(None), *(slice(a, n - b) for (a, b), n in zip(widths, wide.shape, strict=True)))
    np.testing.assert_array_equal(found.probabilities[inside], alone.probabilities)
    assert found.probabilities.sum(axis=0) == pytest.approx(1, abs=1e-5)


def test_a_card_of_version_0_1_0_pads_at_the_end_and_keeps_margins() -> None:
    plain = card().to_dict()
    del plain["preprocessing"], plain["hdf5"]
    spacing = {"target_spacing_mm": [1, 1, 2], "window_vox": [64, 64, 64], "channel_names": None}
    first = ModelCard.from_dict(plain | spacing).preprocessing
    expected = {"spacing_mm": (1, 1, 2), "resampling": "plain", "window_vox": (64, 64, 64)}
    assert first == Preprocessing(padding="end", crop="none", **expected)
    later = ModelCard.from_dict(plain | spacing | {"padding": "both", "crop_margins": True})
    assert later.preprocessing == Preprocessing(**expected)
    assert ModelCard.from_dict(card().to_dict()) == card()


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 9, 5), (33, 6, 20)])
@pytest.mark.parametrize("window_vox", [(64, 64, 64), (8, 8, 8)])
def test_any_size_comes_back_in_its_own(
    tmp_path: Path, shape: tuple[int, int, int], window_vox: tuple[int, int, int]
) -> None:
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = save_nifti(tmp_path / "scan.nii", noise)
    assert predictor(window_vox=window_vox).predict(path).labels.shape == shape


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 1, 2), np.uint8),
        ((0, 255, 7), np.uint8),
        ((0, 10, 256), np.uint16),
        ((0, 17, 12345), np.uint16),
    ],
)
def test_segmentations_hold_the_users_own_values(
    scan: Path, values: tuple[int, ...], dtype: Any
) -> None:
    classes = card().classes
    labels = predictor(label_values=dict(zip(classes, values, strict=True))).predict(scan).labels
    usual = predictor().predict(scan).labels
    assert labels.dtype == dtype
    np.testing.assert_array_equal(labels, np.array(values)[usual // 10])


def test_channels_are_counted_ordered_and_on_one_grid(scan: Path, tmp_path: Path) -> None:
    other = save_nifti(tmp_path / "other.nii.gz", tiny_case(2)[0])
    model = predictor(in_channels=2)
    one, two = str(scan), VolumeRef(other)
    assert (model.predict([one, two]).labels != model.predict([two, one]).labels).any()
    for wrong in ([one], [one, two, one], []):
        with pytest.raises(DataError, match=f"found: +{len(wrong)}\n +expected: 2"):
            model.predict(wrong)
    moved = nib.load(other).affine.copy()
    moved[0, 3] += 5
    shifted = save_nifti(tmp_path / "moved.nii.gz", tiny_case(2)[0], moved)
    with pytest.raises(DataError, match="different grids"):
        model.predict([one, shifted])


def test_a_scan_that_cannot_be_segmented_is_named(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "flat.nii.gz", np.full(SHAPE, 7, np.float32))
    with pytest.raises(DataError, match=r"constant[\s\S]*flat\.nii\.gz"):
        predictor().predict(path)


def test_a_card_comes_back_from_its_plain_form() -> None:
    hdf5 = Hdf5Geometry((1.0, 2.0, 3.0), tuple(map(tuple, np.eye(4).tolist())))
    for made in (card(), card(spacing_mm=(1.0, 1.0, 2.0), in_channels=3, hdf5=hdf5)):
        assert ModelCard.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_run_folder_and_its_checkpoints_load(source_run: Path, data: Path) -> None:
    scan = data / "tiny" / "sub-01" / "sub-01_T2w.nii.gz"
    best = Predictor.load(source_run, device="cpu")
    assert best.card.classes == ("background", "blob")
    assert best.card.label_values["blob"] == 10
    labels = best.predict(scan).labels
    assert set(np.unique(labels)) == {0, 10}
    again = Predictor.load(source_run / "checkpoints" / "best.ckpt", device="cpu")
    np.testing.assert_array_equal(again.predict(scan).labels, labels)


def test_wrong_checkpoints(source_run: Path, tmp_path: Path) -> None:
    good = torch.load(source_run / "checkpoints" / "best.ckpt", weights_only=True)
    other = {**good, "hsf_finetune": {**good["hsf_finetune"], "classes": ["background", "a", "b"]}}
    lacking = {**good, "hsf_finetune": {"format": 1, "classes": ["background", "blob"]}}
    (tmp_path / "garbage.ckpt").write_bytes(b"\x80garbage" * 50)
    torch.save(good["state_dict"], tmp_path / "bare.pt")
    torch.save(other, tmp_path / "other.ckpt")
    torch.save(lacking, tmp_path / "lacking.ckpt")
    shutil.copytree(source_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt"))
    for name, said in (
        ("garbage.ckpt", "not a readable checkpoint"),
        ("bare.pt", "do not say what their classes are"),
        ("other.ckpt", "contradict each other"),
        ("lacking.ckpt", "contradict each other"),
        ("run", "no 'best' checkpoint"),
        ("nowhere", "nowhere"),
    ):
        with pytest.raises(WeightsError, match=said) as caught:
            Predictor.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no device '{name}' on this machine"):
        pick_device(name)
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
