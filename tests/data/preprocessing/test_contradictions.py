"""Scans of another kind than a network's preprocessing is made for are told so, with the figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.data.preprocessing.contradictions import contrary_intensities
from tests.data.writing import case, nifti, scan

SHAPE = (20, 20, 20)
WINDOW = WindowIntensity(low=-175, high=250)
STATISTICS = ZScoreIntensity(clip=(-50, 250), mean=80, std=60)
RANDOM = np.random.default_rng(0)
AIR = RANDOM.random(SHAPE) < 0.4
CT = np.where(AIR, RANDOM.normal(-1000, 10, SHAPE), RANDOM.normal(60, 70, SHAPE))
MR = np.abs(RANDOM.normal(600, 200, SHAPE))
SCANS = {
    "CT": CT,
    "MR": MR,
    "MR of 8 bits": MR / 8,
    "z-scored": (MR - MR.mean()) / MR.std(),
    "CT that starts at 0": CT + 1100,
    "MR with a spike": np.where(np.arange(MR.size).reshape(SHAPE) == 5, 1e5, MR),
    "stripped": np.where(AIR, 0, MR),
    "nearly empty": np.where(RANDOM.random(SHAPE) < 0.001, MR, 0),
}
CONTRARY: list[tuple[str, Intensity, str]] = [
    ("z-scored", STATISTICS, "scans take up 1."),
    ("z-scored", WINDOW, "scans take up 1."),
    ("MR", WINDOW, "96% of the voxels are above -175 to 250"),
    ("MR", STATISTICS, "of the voxels are above -50 to 250"),
    ("MR of 8 bits", WINDOW, "no voxel is below 0"),
    ("CT that starts at 0", WINDOW, "60% of the voxels are above"),
    ("MR", ZScoreIntensity(mean=50, std=20), "27.5 standard deviations from 50"),
    ("CT", ZScoreIntensity(), "as Hounsfield units"),
    ("MR with a spike", MinMaxIntensity(), "in the lowest 1.1%"),
    ("MR", ZScoreIntensity(mask="nonzero_filled"), "0.0% of them are 0"),
    ("nearly empty", PercentileIntensity(), "0.5 and 99.5 of a scan are both 0"),
]
FITTING: list[tuple[str, Intensity]] = [
    ("CT", WINDOW),
    ("CT", STATISTICS),
    ("CT", PercentileIntensity()),
    ("MR", ZScoreIntensity()),
    ("z-scored", ZScoreIntensity()),
    ("MR", MinMaxIntensity()),
    ("MR", PercentileIntensity()),
    ("MR", ZScoreIntensity(mean=600, std=200)),
    ("stripped", ZScoreIntensity(mask="nonzero")),
    ("stripped", PercentileIntensity(mask="nonzero")),
]


def found_in(folder: Path, image: Any, intensity: Intensity) -> list[str]:
    cases = [case(folder, name, shape=SHAPE) for name in ("a", "b")]
    for one in cases:
        nifti(one.images[0].path, image.astype(np.float32))
    how = Preprocessing(intensity=(intensity,), fill_values="kept", crop="none")
    return list(contrary_intensities(how, cases))


@pytest.mark.parametrize(("kind", "intensity", "words"), CONTRARY)
def test_scans_of_another_kind(tmp_path: Path, kind: str, intensity: Intensity, words: str) -> None:
    (line,) = found_in(tmp_path, SCANS[kind], intensity)
    assert line.startswith("channel 1: ")
    assert words in line


@pytest.mark.parametrize(("kind", "intensity"), FITTING)
def test_scans_of_the_right_kind(tmp_path: Path, kind: str, intensity: Intensity) -> None:
    assert found_in(tmp_path, SCANS[kind], intensity) == []


def test_one_scan_of_another_kind_is_no_reason(tmp_path: Path) -> None:
    cases = [case(tmp_path, name, shape=SHAPE) for name in ("a", "b")]
    nifti(cases[0].images[0].path, CT.astype(np.float32))
    nifti(cases[1].images[0].path, scan(shape=SHAPE))
    how = Preprocessing(intensity=(WINDOW,))
    assert list(contrary_intensities(how, cases)) == []
    cases[0].images[0].path.write_bytes(b"no scan")
    assert list(contrary_intensities(how, cases)) == []
