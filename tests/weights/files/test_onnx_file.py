"""ONNX files of others: read where their tensors have names, or refused with the way out."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx
import pytest
import torch

from hsf_finetune.config.settings import BasicUNetSettings, NetworkSettings, UNetSettings
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.read_source import read_source

PLAIN = BasicUNetSettings(features=[4, 4, 4, 4, 4, 4])
MERGED = UNetSettings(channels=[4, 6], strides=[2], features=4)
"""PyTorch's exporter gives the slopes of its activations other names."""


def exported(settings: NetworkSettings, file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a trained network that somebody exported as usual."""
    anatomy = build(settings, 1, 3)
    with torch.no_grad():  # the exporter merges equal ones
        for parameter in anatomy.network.parameters():
            parameter.add_(torch.randn_like(parameter))
    example = torch.zeros(1, 1, *(2 * n for n in anatomy.divisor))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(anatomy.network.eval(), (example,), file, dynamo=False)
    return anatomy.network.state_dict()


def test_tensors_with_names_are_read_and_tell_their_network(tmp_path: Path) -> None:
    tensors = exported(PLAIN, tmp_path / "theirs.onnx")
    found = read_source(tmp_path / "theirs.onnx")
    assert found.models is not None
    assert found.models["name"] == "basicunet"
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)


def test_renamed_tensors_are_refused_with_the_way_out(tmp_path: Path) -> None:
    exported(MERGED, tmp_path / "theirs.onnx")
    with pytest.raises(WeightsError, match="onnx::PRelu") as refusal:
        read_source(tmp_path / "theirs.onnx")
    assert "do_constant_folding=False" in str(refusal.value.fix)
    assert "finetuning.pretrained=hsf" in str(refusal.value.fix)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    exported(PLAIN, tmp_path / "theirs.onnx")
    model = onnx.load(tmp_path / "theirs.onnx")
    external = {"save_as_external_data": True, "size_threshold": 0, "location": "theirs.data"}
    onnx.save(model, tmp_path / "divided.onnx", **external)
    with pytest.raises(WeightsError, match="its weights in another file"):
        read_source(tmp_path / "divided.onnx")


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match="pip install onnx"):
        read_source(tmp_path / "theirs.onnx")
