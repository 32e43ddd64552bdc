"""A single checkpoint of nnU-Net is read as the folder is, from the plans that it holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.settings import NnUNetSettings
from hsf_finetune.networks.build import build, class_axes
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.read_source import SourceOptions, read_source
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.transfer_weights import transfer
from tests.weights.sources.test_nnunet_folder import FINAL, PLAIN, RESIDUAL


@pytest.fixture(params=[PLAIN, RESIDUAL], ids=["plain", "residual"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A results folder as nnU-Net leaves it."""
    chosen: Path = request.param
    return chosen


def _changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = torch.load(PLAIN / FINAL, weights_only=False)
    change(content)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("orientation", ["RAS", "LPI"])
def test_a_file_says_what_its_folder_says(tmp_path: Path, folder: Path, orientation: str) -> None:
    options = SourceOptions(orientation=orientation)
    alone = read_source(shutil.copy(folder / FINAL, tmp_path / "weights.pt"), options)
    whole = read_source(folder, options)
    assert alone.models == whole.models
    assert (alone.classes, alone.channel_names) == (whole.classes, whole.channel_names)
    assert alone.in_channels == whole.in_channels
    assert alone.digest == whole.digest
    differing = {key for key in whole.origin if alone.origin[key] != whole.origin[key]}
    assert differing <= {"checkpoint", "notes", "name"}
    assert set(alone.origin["notes"]) <= set(whole.origin["notes"])


def test_a_network_by_hand_whose_axes_differ_is_refused(tmp_path: Path) -> None:
    source = read_source(shutil.copy(PLAIN / FINAL, tmp_path / "weights.pth"))
    ours = validate_network({**(source.models or {}), "orientation": "RAS"})
    assert isinstance(ours, NnUNetSettings)
    anatomy = build(ours, 2, 3)
    request = HeadRequest(source.classes or (), class_axes(ours, 2, 3))
    with pytest.raises(WeightsError, match=r"models\.orientation: ASR in the weights, RAS"):
        transfer(anatomy, source, request)


@pytest.mark.parametrize(
    ("axes", "labels", "expected"),
    [
        ((0, 1, 2), ("a", "b"), "mirrored"),
        ((1,), ("a", "b"), "kept"),
        (None, ("a", "b"), "kept"),
        ((0, 1, 2), ("L_CA1", "R_CA1"), None),
    ],
)
def test_the_axes_of_mirroring_say_whether_sides_are_mirrored(
    tmp_path: Path, axes: object, labels: tuple[str, ...], expected: str | None
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["inference_allowed_mirroring_axes"] = axes
        numbered = {"background": 0, **{name: n for n, name in enumerate(labels, start=1)}}
        content["init_args"]["dataset_json"]["labels"] = numbered

    how = read_source(_changed(tmp_path / "a.pth", change)).preprocessing
    assert how is not None
    assert how.sides == expected


@pytest.mark.parametrize("part", ["plans", "dataset_json"])
def test_a_file_without_its_description_is_a_plain_one(tmp_path: Path, part: str) -> None:
    path = _changed(tmp_path / "a.pth", lambda content: content["init_args"].pop(part))
    assert read_source(path).origin["format"] == "PyTorch"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda given: given["dataset_json"].update(labels={"background": 0, "x": 1}), "classes"),
        (lambda given: given.update(configuration="2d"), "2D network"),
        (lambda given: given.update(configuration="4d"), "no configuration '4d'"),
    ],
)
def test_a_description_that_does_not_suit(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    path = _changed(tmp_path / "a.pth", lambda content: change(content["init_args"]))
    with pytest.raises(WeightsError, match=why) as caught:
        read_source(path)
    assert str(path) in str(caught.value)
