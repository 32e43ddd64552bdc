"""Of a head, the regions that a template shows are segmented, in the scan's own geometry."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.inference import localisation
from hsf_finetune.inference.localisation import RegionFinder
from hsf_finetune.system.errors import ConfigError, DataError
from tests.inference.heads import affine_map, draw_head, save_template
from tests.inference.test_predictor import predictor

pytest.importorskip("picsl_greedy")

PIR = np.array([[0, 0, 2.0, -95], [-2.0, 0, 0, 105], [0, -2.2, 0, 110], [0, 0, 0, 1]])
"""Axes to posterior, inferior and right."""
SHAPE = (105, 98, 96)
MOVED = affine_map((12, -8, 10), (1.08, 0.95, 1.03), (6, -10, 5))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "head.nii.gz"
    nib.save(nib.Nifti1Image(draw_head(SHAPE, PIR, MOVED)[0], PIR), path)
    return path


@pytest.mark.parametrize(
    "moved", [MOVED, affine_map((-15, 12, 15), (0.9, 0.92, 0.95), (-15, 10, -12))]
)
def test_the_parts_hold_the_whole_structure_and_little_else(
    template: tuple[Path, Path], scan: Path, moved: np.ndarray
) -> None:
    image, labels = draw_head(SHAPE, PIR, moved)
    finder = RegionFinder.read(*template)
    boxes = finder.find(predictor().read((300 - image, PIR))[0])  # another contrast
    assert list(boxes) == [1, 2]
    for value, box in boxes.items():
        assert (labels[box] == value).sum() == (labels == value).sum()
        needed = np.ptp(np.argwhere(labels == value), axis=0)
        sides = [side.stop - side.start for side in box]
        assert all(n <= m + 2 * (8 + 6) / 2 for n, m in zip(sides, needed, strict=True))


def test_a_segmentation_has_the_geometry_of_the_head(
    template: tuple[Path, Path], scan: Path
) -> None:
    model, finder = predictor(), RegionFinder.read(*template, values=[2], margin_mm=4)
    volumes = model.read(scan)
    found = finder.segment(model, volumes)
    assert found.labels.shape == SHAPE
    np.testing.assert_array_equal(found.affine, volumes[0].affine)
    (box,) = found.boxes.values()
    alone = model.predict((volumes[0].array[box], PIR))
    outside = np.ones(SHAPE, bool)
    outside[box] = False
    assert (found.labels[outside] == 0).all()
    assert set(np.unique(found.labels[box])) > {0}
    assert sum(found.volumes_mm3.values()) == pytest.approx((found.labels > 0).sum() * 8.8)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0) * 10, found.labels)
    np.testing.assert_array_equal(alone.labels, found.labels[box])
    assert not [one for one in found.warnings if one.kind == "scan/located"]
    assert found.located.found.startswith("region 2: ")


def test_the_command_says_which_parts_were_segmented(
    source_run: Path,
    template: tuple[Path, Path],
    scan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["predict", str(source_run), str(scan), "-o", str(tmp_path), "--engine", "torch"]
    with pytest.raises(SystemExit) as caught:
        main([*given, "--where", *map(str, template), "--where-values", "1"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "located: parts of the scan were segmented" in printed
    assert "region 1: " in printed
    assert nib.load(tmp_path / "head.nii.gz").shape == SHAPE


@pytest.mark.parametrize("margin", ["-5", "nan", "inf", "wide"])
def test_a_margin_is_a_number_of_mm(margin: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["predict", "run", "scan", "-o", "out", "--where", "t.nii", "r.nii"]
    with pytest.raises(SystemExit) as caught:
        main([*given, f"--where-margin={margin}"])
    assert caught.value.code == 2
    assert f"'{margin}' is not a number of mm, 0 or more" in capsys.readouterr().err


def test_regions_that_are_not_there(
    template: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"found: +1, 2\n +expected: 7"):
        RegionFinder.read(*template, values=[1, 7])
    monkeypatch.setattr(localisation, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"hsf-finetune\[registration\]"):
        RegionFinder.read(*template)
