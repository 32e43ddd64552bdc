"""nnU-Net's weights, read from what nnU-Net itself wrote (stored/make_nnunet.py)."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hsf_finetune as hf
from hsf_finetune.config.settings import NnUNetSettings
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.build import build, class_axes
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.nnunet_folder import is_nnunet, read_nnunet
from hsf_finetune.weights.sources.read_source import read_source
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.transfer_weights import transfer
from tests.closeness import assert_equal_up_to_rounding

FILES = Path(__file__).parents[1] / "stored" / "nnunet"
PLAIN = FILES / "plain" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
RESIDUAL = FILES / "residual" / "nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres"
FINAL = Path("fold_0") / "checkpoint_final.pth"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A results folder to change."""
    return Path(shutil.copytree(PLAIN, tmp_path / PLAIN.name))


def _change(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def _loaded(checkpoint: Checkpoint, classes: tuple[str, ...]) -> tuple[torch.nn.Module, Any]:
    assert checkpoint.models
    assert checkpoint.in_channels
    settings = validate_network(checkpoint.models)
    anatomy = build(settings, checkpoint.in_channels, len(classes))
    axes = class_axes(settings, checkpoint.in_channels, len(classes))
    receipt = transfer(anatomy, checkpoint, HeadRequest(classes, axes))
    return anatomy.network.eval(), receipt


@torch.no_grad()
@pytest.mark.parametrize(
    ("folder", "images", "stored"),
    [
        (PLAIN, "RAS", "RAS"),
        (PLAIN, "PIR", "PIR"),
        # Its reader reorients, so it does not matter how images are stored.
        (RESIDUAL, "LAS", "RAS"),
        (RESIDUAL, "PIR", "LPI"),
    ],
)
def test_logits_are_those_of_nnunet(folder: Path, images: str, stored: str) -> None:
    checkpoint = read_nnunet(folder, orientation=stored)
    network, receipt = _loaded(checkpoint, ("background", "anterior", "posterior"))
    assert receipt.share_tensors == receipt.share_parameters == 1
    assert {entry.status for entry in receipt.entries} == {"loaded"}
    assert {name.split(".")[1] for name in receipt.unused} == {"seg_layers"}
    with np.load(folder.parent / "reference.npz") as reference:
        image = torch.from_numpy(reference["image"].astype(np.float32))
        expected = torch.from_numpy(reference[images])
    image[0] = (image[0] - image[0].mean()) / image[0].std(correction=0)
    assert_equal_up_to_rounding(network(image[None])[0], expected)


def test_another_orientation_gives_other_logits() -> None:
    with np.load(PLAIN.parent / "reference.npz") as reference:
        assert np.abs(reference["RAS"] - reference["PIR"]).max() > 0.1


def test_what_the_files_tell_is_kept() -> None:
    checkpoint = read_nnunet(PLAIN)
    assert checkpoint.classes == ("background", "anterior", "posterior")
    assert checkpoint.channel_names == ("T1w", "noNorm")
    origin = checkpoint.origin
    assert origin["target_spacing_mm"] == pytest.approx([1.0, 2.6, 0.8])
    assert origin["patch_vox"] == [16, 8, 24]
    assert origin["label_values"] == {"background": 0, "anterior": 1, "posterior": 2}
    assert origin["normalisation"] == ["ZScoreNormalization", "NoNormalization"]
    assert "stored as RAS" in origin["notes"][0]
    json.dumps([origin, checkpoint.models])


def test_the_ignore_label_is_no_class_and_a_reorienting_reader_needs_no_assumption() -> None:
    checkpoint = read_nnunet(RESIDUAL)
    assert checkpoint.classes == ("background", "anterior", "posterior")
    assert "turned all images to RAS" in checkpoint.origin["notes"][0]


@pytest.mark.parametrize("part", ["", "fold_0", str(FINAL)])
def test_folder_fold_and_file_mean_the_same(part: str) -> None:
    assert is_nnunet(PLAIN / part)
    checkpoint = read_source(PLAIN / part)
    assert checkpoint.path == PLAIN / FINAL
    assert checkpoint.origin["fold"] == "0"


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_means_the_folder(kind: str, tmp_path: Path) -> None:
    made = shutil.make_archive(str(tmp_path / "made"), kind, PLAIN.parent, PLAIN.name)
    found, expected = read_source(made), read_source(PLAIN)
    assert found.path == Path(made)
    for part in ("classes", "models", "in_channels", "channel_names", "preprocessing", "origin"):
        assert getattr(found, part) == getattr(expected, part)
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[n], t) for n, t in expected.tensors.items())


@torch.no_grad()
def test_regions_keep_their_logits_and_the_last_one_counts(copied: Path) -> None:
    theirs, _ = _loaded(read_nnunet(copied), ("background", "anterior", "posterior"))
    labels = {"background": 0, "whole": [1, 2], "front": [1], "back": 2, "ignore": 3}
    _change(
        copied / "dataset.json", lambda d: d.update(labels=labels, regions_class_order=[3, 1, 2])
    )
    model = hf.load_model(copied, device="cpu")
    assert isinstance(model, Predictor)
    values = {"background": 0, "whole": 3, "front": 1, "back": 2}
    assert model.card.label_values == values
    image = torch.randn(1, 2, 16, 16, 24)
    expected = torch.cat([torch.zeros(1, 1, 16, 16, 24), theirs(image)], dim=1)
    assert_equal_up_to_rounding(model.anatomy.network(image), expected)
    scan = [(np.random.default_rng(n).normal(size=(16, 16, 24)), np.eye(4)) for n in range(2)]
    found = model.predict(scan)
    assert set(np.unique(found.labels)) <= {0, 1, 2, 3}
    with pytest.raises(ConfigError, match=r"(?s)no probabilities.*whole, front, back"):
        _ = found.probabilities
    decided = model.deciding_probabilities(model.read(scan))
    assert np.array_equal(np.array([0, 3, 1, 2])[decided.argmax(0).numpy()], found.labels)
    assert ModelCard.from_dict(model.card.to_dict()).regions
    with pytest.raises(ConfigError, match=r"(?s)exclude each other.*whole, front, back"):
        hf.export(model, "hsf", copied / "exported")
    assert not (copied / "exported").exists()


def test_other_things_are_none(tmp_path: Path, copied: Path) -> None:
    (tmp_path / "fold_0").mkdir()
    for other in (tmp_path, tmp_path / "fold_0", copied / "plans.json", tmp_path / "missing"):
        assert not is_nnunet(other)
    with pytest.raises(WeightsError, match="not a results folder"):
        read_nnunet(tmp_path)


def test_the_fold_of_all_cases_is_preferred_and_others_are_named(copied: Path) -> None:
    shutil.copytree(copied / "fold_0", copied / "fold_1")
    assert read_nnunet(copied).origin["fold"] == "0"
    shutil.copytree(copied / "fold_0", copied / "fold_all")
    checkpoint = read_nnunet(copied)
    assert checkpoint.path.parent.name == "fold_all"
    assert "other folds: 0, 1" in checkpoint.origin["notes"][-1]
    assert read_nnunet(copied, fold=1).path.parent.name == "fold_1"
    with pytest.raises(WeightsError, match=r"fold 3.*\n(.*\n)*.*fold_0/checkpoint_final\.pth"):
        read_nnunet(copied, fold=3)


def test_a_checkpoint_that_is_missing_is_replaced_and_that_is_said(copied: Path) -> None:
    shutil.copy(copied / FINAL, copied / "fold_0" / "checkpoint_best.pth")
    both = read_source(copied)
    assert both.path.name == "checkpoint_final.pth"
    assert str(copied / "fold_0" / "checkpoint_best.pth") in both.origin["notes"][-1]
    (copied / FINAL).unlink()
    assert read_source(copied).origin["notes"][-1] == "checkpoint_best.pth is used"


@pytest.mark.parametrize("folder", [PLAIN, RESIDUAL])
def test_older_plans_give_the_same_network(tmp_path: Path, folder: Path) -> None:
    older = Path(shutil.copytree(folder, tmp_path / folder.name))

    def to_the_older_form(plans: dict[str, Any]) -> None:
        own = plans["configurations"]["3d_fullres"]
        new = own.pop("architecture")
        given = new["arch_kwargs"]
        own |= {
            "UNet_class_name": new["network_class_name"].rpartition(".")[2],
            "UNet_base_num_features": given["features_per_stage"][0],
            "unet_max_num_features": max(given["features_per_stage"]),
            "conv_kernel_sizes": given["kernel_sizes"],
            "pool_op_kernel_sizes": given["strides"],
            "n_conv_per_stage_encoder": given.get("n_conv_per_stage")
            or given["n_blocks_per_stage"],
            "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        }

    _change(older / "plans.json", to_the_older_form)
    settings = [validate_network(read_nnunet(path).models or {}) for path in (older, folder)]
    assert settings[0] == settings[1]


def test_configurations_inherit(copied: Path) -> None:
    renamed = copied.rename(copied.with_name("nnUNetTrainer__nnUNetPlans__wider"))
    wider = {"inherits_from": "3d_fullres", "spacing": [9.0, 8.0, 7.0]}
    _change(renamed / "plans.json", lambda plans: plans["configurations"].update(wider=wider))
    checkpoint = read_nnunet(renamed)
    assert checkpoint.origin["target_spacing_mm"] == [7.0, 9.0, 8.0]
    assert checkpoint.models == read_nnunet(PLAIN).models
    loop = {"wider": {"inherits_from": "wider"}}
    _change(renamed / "plans.json", lambda plans: plans["configurations"].update(loop))
    with pytest.raises(WeightsError, match="inherits from itself"):
        read_nnunet(renamed)


def _configuration(change: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    return lambda plans: plans["configurations"]["3d_fullres"].update(change)


def _architecture(**change: Any) -> Callable[[dict[str, Any]], object]:
    return lambda plans: plans["configurations"]["3d_fullres"]["architecture"].update(change)


def _argument(**change: Any) -> Callable[[dict[str, Any]], object]:
    def apply(plans: dict[str, Any]) -> None:
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(change)

    return apply


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        ("plans.json", _configuration({"previous_stage": "3d_lowres"}), "cascade"),
        ("plans.json", _architecture(network_class_name="os.system"), "not supported"),
        ("plans.json", _argument(conv_op="torch.nn.modules.conv.Conv2d"), "2D"),
        ("plans.json", _argument(nonlin="os.system"), "nonlin: Input should be"),
        ("plans.json", _argument(block="a.b.BottleneckD"), "bottleneck blocks"),
        ("plans.json", _argument(squeeze=True), "squeeze: Extra inputs"),
        ("plans.json", lambda plans: plans.update(transpose_forward=[0, 0, 1]), "transpose"),
        ("plans.json", lambda plans: plans.update(configurations={}), "no configuration '3d_full"),
        ("dataset.json", lambda d: d.update(labels={"background": 0, "w": [1, 2]}), "counts where"),
        ("dataset.json", lambda d: d.update(labels={"a": 1, "b": 2}), "labels .* cannot be read"),
        ("dataset.json", lambda d: d.update(labels={"background": 0, "a": 1}), "about the classes"),
        ("dataset.json", lambda d: d.update(channel_names={"0": "T1w"}), "input channels"),
        ("dataset.json", lambda d: d.pop("channel_names"), "channels of nnU-Net's dataset"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(
    copied: Path, file: str, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    _change(copied / file, change)
    with pytest.raises(WeightsError, match=why):
        read_nnunet(copied)


def test_the_2d_configuration_of_the_same_plans_is_refused(copied: Path) -> None:
    flat = copied.rename(copied.with_name("nnUNetTrainer__nnUNetPlans__2d"))
    with pytest.raises(WeightsError, match="2D network"):
        read_nnunet(flat)


@pytest.mark.parametrize("text", ["{", "[]", "\xff", "[" * 100_000])
def test_damaged_plans_are_named(copied: Path, text: str) -> None:
    (copied / "plans.json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"plans\.json"):
        read_nnunet(copied)


def test_an_orientation_that_is_none_is_refused() -> None:
    with pytest.raises(WeightsError, match="'RAX' is not the orientation"):
        read_nnunet(PLAIN, orientation="RAX")


def test_files_written_with_numpy_1_are_read(copied: Path) -> None:
    with zipfile.ZipFile(copied / FINAL) as archive:
        parts = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(copied / FINAL, "w") as archive:
        for info, content in parts:
            # The only difference: where numpy 2 has moved its numbers.
            archive.writestr(info, content.replace(b"cnumpy._core.", b"cnumpy.core."))
    assert b"cnumpy.core.multiarray\nscalar\n" in (copied / FINAL).read_bytes()
    tensors = read_nnunet(copied).tensors
    expected = read_nnunet(PLAIN).tensors
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_nothing_in_a_checkpoint_runs(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied)
    weights = torch.load(copied / FINAL, weights_only=False)
    torch.save(weights | {"logging": _Runs()}, copied / FINAL)
    assert read_nnunet(copied).tensors.keys() == weights["network_weights"].keys()
    assert not (copied / "ran").exists()


def test_batch_normalisation_shows_in_the_weights(copied: Path) -> None:
    theirs = read_nnunet(copied).models or {}
    with_batch = validate_network(theirs | {"norm_op": "BatchNorm3d"})
    assert isinstance(with_batch, NnUNetSettings)
    network = build(with_batch, 2, 3).network
    torch.save({"network_weights": network.state_dict()}, copied / FINAL)
    _, receipt = _loaded(read_nnunet(copied), ("background", "anterior", "posterior"))
    assert {entry.status for entry in receipt.entries} == {"loaded"}
