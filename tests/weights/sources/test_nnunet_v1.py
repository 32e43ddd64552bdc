"""A model in the form of nnU-Net v1 loads, predicts as its network does, and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.settings import STUNetSettings
from hsf_finetune.config.settings.preprocessing_settings import ZScoreIntensity
from hsf_finetune.networks.build import build
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.read_source import SourceOptions, read_source
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.transfer_weights import transfer
from tests.weights.sources.nnunet_v1_model import write_files, write_model

PICKLE = "fold_0/model_final_checkpoint.model.pkl"


def loaded(source: Checkpoint) -> torch.nn.Module:
    assert source.models is not None
    anatomy = build(validate_network(source.models), source.in_channels or 0, 3)
    receipt = transfer(anatomy, source, HeadRequest("abc", {}))
    assert receipt.share_loaded == 1
    assert not receipt.beyond
    return anatomy.network.eval()


@pytest.mark.parametrize("convs", [2, 3])
def test_it_predicts_as_its_network(convs: int, tmp_path: Path) -> None:
    origin = write_model(tmp_path / "model", convs)
    source = read_source(tmp_path / "model")
    assert source.models is not None
    # Arrays are (z, y, x) of files that are assumed to be RAS, and are transposed to (y, z, x).
    assert source.models["orientation"] == "ASR"
    x = torch.randn(1, 2, 12, 8, 20)
    with torch.inference_mode():
        ours = loaded(source)(x)
        theirs = origin(x.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_network_with_names_of_its_own_follows_from_its_tensors(tmp_path: Path) -> None:
    settings = STUNetSettings(
        orientation="ASR",
        features_per_stage=[4, 8, 8],
        kernel_sizes=[[1, 3, 3], 3, 3],
        strides=[1, [1, 2, 2], 2],
    )
    origin = build(settings, 2, 3).network.eval()
    write_files(tmp_path / "model", origin)
    source = read_source(tmp_path / "model")
    assert (source.models or {})["name"] == "stunet"
    assert source.origin["label_values"] == {"background": 0, "label 1": 1, "label 7": 7}
    x = torch.randn(1, 2, 12, 8, 20)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(source)(x), origin(x))


def test_scans_are_prepared_as_its_plans_say(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    how = read_source(tmp_path / "model").preprocessing
    assert how is not None
    assert how.spacing_mm == (0.8, 3.0, 1.0)
    assert how.patch_vox == (24, 8, 16)
    assert (how.intensity_first, how.resampling, how.crop) == (False, "nnunet", "nonzero")
    ct = ZScoreIntensity(clip=(-100, 300), mean=40, std=20)
    assert how.intensity == (ZScoreIntensity(mask="nonzero_filled"), ct)
    assert how.channel_names == ("T1", "CT")


def _as_tar(model: Path) -> Path:
    with tarfile.open(model.with_suffix(".tar"), "w") as tar:
        tar.add(model, "nnUNet/3d_fullres/Task101/nnUNetTrainerV2__nnUNetPlansv2.1")
    return model.with_suffix(".tar")


def _as_zip(model: Path) -> Path:
    with zipfile.ZipFile(model.with_suffix(".zip"), "w") as archive:
        for file in model.rglob("*.*"):
            archive.write(file, Path("model") / file.relative_to(model))
    return model.with_suffix(".zip")


@pytest.mark.parametrize(
    "of",
    [
        lambda model: model,
        lambda model: model / "fold_0",
        lambda model: model / PICKLE,
        lambda model: model / PICKLE.removesuffix(".pkl"),
        _as_tar,
        _as_zip,
    ],
    ids=["folder", "fold", "pickle", "weights", "tar", "zip"],
)
def test_forms_that_it_is_published_in(of: Callable[[Path], Path], tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    given = of(tmp_path / "model")
    source = read_source(given)
    assert source.origin["format"] == "nnU-Net v1"
    assert source.origin["dataset"] == "Task101_Hippocampus"
    assert source.origin["fold"] == "0"
    assert len(source.tensors) == 48
    if given.suffix in (".tar", ".zip"):
        assert source.path == given


def test_folds_and_checkpoints(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "model/fold_0").rename(tmp_path / "model/fold_3")
    (tmp_path / "model/all").mkdir()
    for end in ("", ".pkl"):
        old = tmp_path / f"model/fold_3/model_final_checkpoint.model{end}"
        (tmp_path / f"model/all/model_best.model{end}").write_bytes(old.read_bytes())
    origin = read_source(tmp_path / "model").origin
    assert (origin["fold"], origin["other_folds"], origin["checkpoint"]) == (
        "all",
        ["3"],
        "model_best.model",
    )
    assert origin["notes"][-1] == "model_best.model is used"
    third = read_source(tmp_path / "model", SourceOptions(fold=3)).origin
    assert third["checkpoint"] == "model_final_checkpoint.model"


@pytest.mark.parametrize("beside", ["fold_0", "."])
def test_classes_are_named_by_the_datasets_json(beside: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    source = read_source(tmp_path / "model")
    assert source.classes is None
    assert source.origin["label_values"] == {"background": 0, "label 1": 1, "label 7": 7}
    assert any("dataset.json" in note for note in source.origin["notes"])
    labels = {"0": "background", "7": "CA1", "1": "DG"}
    (tmp_path / "model" / beside / "dataset.json").write_text(json.dumps({"labels": labels}))
    source = read_source(tmp_path / "model")
    assert source.classes == ("background", "DG", "CA1")
    assert source.origin["label_values"] == {"background": 0, "DG": 1, "CA1": 7}


class _Command:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("place", ["whole", "plans", "beside"])
def test_a_hostile_pickle_executes_nothing(place: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    pickled, sign = tmp_path / "model" / PICKLE, tmp_path / "executed"
    content: Any = pickle.loads(pickled.read_bytes())
    command = _Command(f"touch {sign}")
    if place == "whole":
        content = command
    elif place == "plans":
        content["plans"] = command
    else:
        content["more"] = command
    pickled.write_bytes(pickle.dumps(content))
    if place == "beside":
        assert read_source(tmp_path / "model").origin["format"] == "nnU-Net v1"
    else:
        with pytest.raises(WeightsError, match=r"nnU-Net v1"):
            read_source(tmp_path / "model")
    assert not sign.exists()
    pickle.loads(pickle.dumps(command))
    assert sign.exists()  # it would have


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plans_per_stage": {}}, "cannot be read"),
        ({"normalization_schemes": {0: "CT2", 1: "CT"}}, "CT2"),
        ({"all_classes": [1, 2, 3]}, "disagree about the classes"),
        ({"plans_per_stage": {1: {"pool_op_kernel_sizes": [[2, 2]] * 2, "patch_size": [64, 64],
          "num_pool_per_axis": [2, 2], "current_spacing": [1, 1]}}}, "2D"),
    ],
)  # fmt: skip
def test_plans_that_are_not_followed(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model", **changes)
    with pytest.raises(WeightsError, match=said):
        read_source(tmp_path / "model")


@pytest.mark.parametrize(
    "trainer",
    ["nnUNetTrainerV2CascadeFullRes", "nnUNetTrainerV2_ReLU", "nnUNetTrainerV2BraTSRegions_DA3"],
)
def test_trainers_of_other_networks_are_refused(trainer: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    pickled = tmp_path / "model" / PICKLE
    content = pickle.loads(pickled.read_bytes())
    pickled.write_bytes(pickle.dumps({**content, "name": trainer}))
    with pytest.raises(WeightsError, match=trainer):
        read_source(tmp_path / "model")
