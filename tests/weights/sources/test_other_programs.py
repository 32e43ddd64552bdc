"""What other programs write is called what it is, with the way to weights that can be read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.read_source import read_source


def _refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_source(path)
    text = str(caught.value)
    assert str(path) in text
    assert "  fix: " in text
    return text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((".metadata", "__0_0.distcp"), "format_utils dcp_to_torch '{path}' model.pt"),
        (("zero_to_fp32.py", "latest"), "python '{path}/zero_to_fp32.py' '{path}' model.pt"),
        (("plans.pkl", "fold_0"), "nnU-Net v1"),
        (("saved_model.pb", "variables"), "TensorFlow"),
        (("model.ckpt.index", "model.ckpt.data-00000-of-00001", "checkpoint"), "TensorFlow"),
        (("model.onnx",), "finetuning.pretrained={path}/model.onnx"),
    ],
)
def test_folders(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert said.format(path=tmp_path) in _refused(tmp_path)


def test_an_export_beside_weights_is_no_hindrance(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.pt"):
        (tmp_path / name).touch()
    assert "finetuning.pretrained=" in _refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("__0_0.distcp", b"PK\x03\x04" + bytes(99), "dcp_to_torch"),
        (".metadata", pickle.dumps({"state_dict_metadata": {}}), "dcp_to_torch"),
        ("saved_model.pb", b"\x08\x01\x12\x10abc", "TensorFlow"),
        ("frozen.pb", b"\n\x10\n\x05input\x12\x0bPlaceholder", "TensorFlow"),
        ("weights.bin", b"\n\x10\n\x05input\x12\x0bPlaceholder", "TensorFlow graph"),
        ("model.ckpt.index", bytes(99), "TensorFlow"),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        ("weights.dat", b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        ("model.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(99), "TensorFlow"),
        ("weights.dat", b"\x1c\x00\x00\x00TFL3" + bytes(99), "TensorFlow Lite"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("weights.dat", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("model_final.model.pkl", pickle.dumps({"init": (), "plans": {}}), "nnU-Net v1"),
        ("weights.dat", pickle.dumps({"init": (), "plans": {}}), "plans of nnU-Net v1"),
        ("weights.pkl", pickle.dumps({"w": [1.0]}), "plain pickle"),
        ("weights.pkl", pickle.dumps([1.0], protocol=0), "text file"),
    ],
)
def test_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in _refused(tmp_path / name)


def test_weights_of_nnunet_v1_are_read_and_called_so(tmp_path: Path) -> None:
    weights = {"conv_blocks_context.0.blocks.0.conv.weight": torch.ones(2, 1, 3, 3, 3)}
    torch.save({"epoch": 1, "state_dict": weights}, tmp_path / "model_final_checkpoint.model")
    source = read_source(tmp_path / "model_final_checkpoint.model")
    assert source.origin["format"] == "nnU-Net v1"
    assert "without their plans: give the model's folder" in source.origin["notes"][0]


def test_a_conversion_that_the_message_names(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    weights = {"net.weight": torch.arange(3.0)}
    dcp.save({"state_dict": weights}, checkpoint_id=tmp_path / "sharded", no_dist=True)
    assert "dcp_to_torch" in _refused(tmp_path / "sharded")
    dcp_to_torch_save(tmp_path / "sharded", tmp_path / "model.pt")
    assert read_source(tmp_path / "model.pt").tensors["net.weight"].tolist() == [0, 1, 2]
