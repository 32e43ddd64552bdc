"""Names of classes are taken from wherever a program keeps its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from hsf_finetune.weights.files.read_checkpoint import read_checkpoint

NAMES = ["background", "CA1", "CA2"]


def _read(path: Path, **beside: Any) -> tuple[str, ...] | None:
    torch.save({"state_dict": {"head.weight": torch.ones(3, 4, 1, 1, 1)}, **beside}, path)
    return read_checkpoint(path).classes


@pytest.mark.parametrize(
    "beside",
    [
        {"classes": NAMES},
        {"class_names": tuple(NAMES)},
        {"hyper_parameters": {"classes": ["Background", "CA1", "CA2"]}},
        {"hyper_parameters": {"data": {"labels": {0: "background", 1: "CA1", 2: "CA2"}}}},
        {"hyper_parameters": {"labels": {"CA2": 2, "background": 0, "CA1": 1}}},
        {"cfg": OmegaConf.create({"model": {"class_names": NAMES}})},
        {"cfg": OmegaConf.create({"labels": {"0": "bg", "1": "CA1", "2": "CA2"}})},
    ],
)
def test_names_are_found(tmp_path: Path, beside: dict[str, Any]) -> None:
    assert _read(tmp_path / "a.ckpt", **beside) == tuple(NAMES)


@pytest.mark.parametrize(
    "names",
    [
        ["CA1", "CA2", "background"],
        ["background", "CA1"],
        ["background", "CA1", "CA1"],
        ["background", "CA1", 2],
        ["case1.nii.gz", "case2.nii.gz", "case3.nii.gz"],
        {0: "background", 1: "CA1", 3: "CA2"},
        "background",
        3,
        None,
    ],
)
def test_other_lists_are_no_names_of_outputs(tmp_path: Path, names: object) -> None:
    assert _read(tmp_path / "a.ckpt", hyper_parameters={"classes": names}) is None


def test_settings_that_hold_themselves_end(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop["again"] = loop
    assert _read(tmp_path / "a.ckpt", config=loop, classes=NAMES) == tuple(NAMES)
    assert _read(tmp_path / "a.ckpt", config=loop) is None
