"""Scans are prepared in one place: nothing else reads orientation, voxel size or normalisation."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import hsf_finetune
from hsf_finetune.config.settings import HSF_PREPROCESSING, Preprocessing, UNetSettings
from hsf_finetune.config.settings.preprocessing_settings import (
    IntensitySteps,
    MinMaxIntensity,
    PercentileIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.data.preprocessing.load_case import load_case
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.build import build
from hsf_finetune.networks.padding import remove_padding
from tests.closeness import assert_equal_up_to_rounding
from tests.data.writing import AFFINE, SPACE, case, nifti, scan

PACKAGE = Path(hsf_finetune.__file__).parent
MEASURING = {
    "check/check_case.py": "measures and pictures of the report",
    "data/typical_scans.py": "numbers to tell unusual scans by",
    "data/augment/batch_augmentation.py": "noise as strong as a share of it",
    "evaluation/volume_agreement.py": "of differences of volumes",
    "evaluation/fit_calibration.py": "of likelihoods of cases",
    "quality/next_scans.py": "of features of the network",
}
"""Modules that measure standard deviations, and give no normalised image away."""

CONTRACTS = {
    "hsf": HSF_PREPROCESSING,
    "version 0.1.0": Preprocessing(
        padding="end", crop="none", resampling="plain", spacing_mm=(1.0, 1.2, 0.7)
    ),
    "ct": Preprocessing(
        orientation="LPS",
        spacing_mm=(1.5, 1.5, 2.0),
        intensity=(WindowIntensity(low=80, high=110),),
        fill_values="kept",
        crop="none",
    ),
    "nnunet": Preprocessing(
        spacing_mm=(0.5, 0.5, 2.0),
        resampling="nnunet",
        intensity=(ZScoreIntensity(mask="nonzero_filled"),),
        intensity_first=True,
        fill_values="kept",
        crop="nonzero",
    ),
    "monai": Preprocessing(
        orientation="LPS", spacing_mm=(1.5, 1.5, 1.3), resampling="monai", padding="symmetric"
    ),
    "percentiles": Preprocessing(
        intensity=(PercentileIntensity(mask="nonzero"),), crop="positive", crop_margin_vox=1
    ),
    "minmax": Preprocessing(orientation="LAS", intensity=(MinMaxIntensity(),)),
    "bundle": Preprocessing(
        spacing_mm=(1.1, 0.9, 0.7),
        resampling="monai_nearest",
        intensity=(IntensitySteps(steps=(WindowIntensity(low=80, high=120), MinMaxIntensity())),),
        fill_values="kept",
        crop="positive",
        crop_after="intensity",
        padding="symmetric",
        padding_mode="replicate",
    ),
    "crop of the resampled scan": Preprocessing(
        spacing_mm=(1.1, 0.9, 0.7), crop="nonzero", crop_after="resampling"
    ),
    "crop of changed intensities": Preprocessing(
        spacing_mm=(1.1, 0.9, 0.7), crop="positive", crop_after="intensity", intensity_first=True
    ),
}


def modules_with(found: Callable[[ast.AST], bool]) -> set[str]:
    """Modules that have such a node, as `room/module.py`."""

    def named() -> Iterator[tuple[str, ast.Module]]:
        for path in PACKAGE.rglob("*.py"):
            yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))

    return {name for name, tree in named() if any(map(found, ast.walk(tree)))}


def test_orientations_are_read_in_one_module() -> None:
    def reads(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            return node.module == "nibabel.orientations"
        names = ("aff2axcodes", "orientations", "as_closest_canonical", "as_reoriented")
        return isinstance(node, ast.Attribute) and node.attr in names

    assert modules_with(reads) == {"data/preprocessing/orientation.py"}


def test_the_former_name_of_the_voxel_size_is_read_where_it_is_chosen() -> None:
    def reads(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "target_spacing_mm"

    assert modules_with(reads) == {
        "config/settings/all_settings.py",
        "data/preprocessing/choose_preprocessing.py",
    }


def named(node: ast.AST, *names: str) -> bool:
    """Whether a node reads or calls something of one of these names."""
    return getattr(node, "attr", getattr(node, "id", None)) in names


def test_intensities_are_normalised_in_one_module() -> None:
    def measures(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and named(node.func, "std", "std_mean", "var_mean")

    rooms = ("networks/", "training/losses")
    found = {name for name in modules_with(measures) if not name.startswith(rooms)}
    own = {"nnunet_rules.py"}
    assert found - MEASURING.keys() == {f"data/preprocessing/{name}" for name in own}

    def calls(node: ast.AST) -> bool:
        is_read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        return is_read and named(node, "normalise_intensity", "normalise_in_place", "Resampler")

    assert modules_with(calls) == {
        f"data/preprocessing/{name}.py"
        for name in ("load_case", "nnunet_rules", "normalise_intensity", "resampling", "voxel_grid")
    } | {"quality/degraded_scans.py"}  # which makes other scans of scans


def test_volumes_are_resampled_in_one_module() -> None:
    def resamples(node: ast.AST) -> bool:
        ways = ("interpolate", "zoom", "grid_sample", "affine_transform", "map_coordinates")
        others = ("resample_from_to", "resample_to_output", "Spacing", "Resample", "Resize")
        return isinstance(node, ast.Call) and named(node.func, *ways, *others)

    rooms = ("networks/", "data/augment/")
    found = {name for name in modules_with(resamples) if not name.startswith(rooms)}
    assert found - {"check/check_case.py"} == {"data/preprocessing/resampling.py"}, (
        "thumbnails apart"
    )


def test_nothing_else_does_what_the_value_says() -> None:
    """Weights are read into it, exports write it down for other programs; nothing else acts on it."""

    def acts(node: ast.AST) -> bool:
        first = ("intensity_of", "intensity_first", "resampling", "fill_values")
        return isinstance(node, ast.Attribute) and named(
            node, *first, "crop_margin_vox", "crop_after"
        )

    rooms = ("data/preprocessing/", "export/", "config/settings/preprocessing_settings.py")
    assert {name for name in modules_with(acts) if not name.startswith(rooms)} == set()


def test_voxel_sizes_are_read_from_headers_in_one_module() -> None:
    def reads(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and named(node, "get_zooms", "zooms", "GetSpacing")

    found = modules_with(reads) - {"check/check_headers.py"}
    assert {name for name in found if not name.startswith("data/volumes/")} == set()


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "AIL"])
def test_a_raw_scan_is_predicted_as_training_saw_it(
    tmp_path: Path, contract: str, codes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = CONTRACTS[contract]
    made = case(tmp_path, "a")
    image = scan()
    image[:2], image[:, -1:] = 0, 0
    nifti(made.images[0].path, image)
    trained = load_case(made, how)
    raw = tmp_path / "raw.nii.gz"
    turn = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
    nib.save(nib.Nifti1Image(image, AFFINE).as_reoriented(turn), raw)
    seen: list[Any] = []
    model = _predictor(how)
    forward = model.anatomy.network.forward
    monkeypatch.setattr(
        model.anatomy.network, "forward", lambda x: (seen.append(x.clone()), forward(x))[1]
    )
    found = model.predict(raw)
    inside = remove_padding(seen[0][0], trained.image.shape[1:], how.padding)
    assert_equal_up_to_rounding(inside, trained.image)
    # What is found lies on the grid of the scan, wherever its axes point.
    assert found.labels.shape == nib.load(raw).shape
    label = nib.Nifti1Image(model.predict(made.images[0]).labels, AFFINE)
    assert (label.as_reoriented(turn).get_fdata() == found.labels).mean() > 0.99


def test_labels_go_the_way_of_the_image(tmp_path: Path) -> None:
    made = case(tmp_path, "a", shape=(26, 24, 22))
    where = np.indices((26, 24, 22)) - np.array([10, 13, 9]).reshape(3, 1, 1, 1)
    rows = ((where**2).sum(0) < 7**2).astype(np.uint8)
    nifti(made.label.path, rows)
    nifti(made.images[0].path, 100 * rows.astype(np.float32) + 10)
    for how in CONTRACTS.values():
        sample = load_case(made, replace_intensity(how))
        assert sample.image.shape[1:] == sample.label.shape
        bright, labelled = sample.image[0] > 60, sample.label == 1
        overlap = 2 * float((bright & labelled).sum()) / float(bright.sum() + labelled.sum())
        assert overlap > 0.9


def replace_intensity(how: Preprocessing) -> Preprocessing:
    """The same with intensities as they are in a file."""
    plain = {**how.to_dict(), "intensity": [{"kind": "none"}], "crop": "none"}
    return Preprocessing.from_dict(plain)


def _predictor(how: Preprocessing) -> Predictor:
    torch.manual_seed(0)
    network = UNetSettings(channels=[4, 8], strides=[2], features=4, num_res_units=1)
    values = dict(zip(SPACE.names, range(3), strict=True))
    card = ModelCard(SPACE.names, values, network, 1, how)
    return Predictor(build(network, 1, 3), card, torch.device("cpu"))
