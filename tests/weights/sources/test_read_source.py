"""A path is read by what lies there, and where nothing fits, it says what was looked for."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.sources.read_source import SourceOptions, find_checkpoint, read_source
from tests.weights.sources.test_nnunet_folder import PLAIN as NNUNET


def test_run_folders(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    best, last = (tmp_path / "checkpoints" / f"{n}.ckpt" for n in ("best", "last"))
    with pytest.raises(WeightsError, match=r"(?s)no 'best' checkpoint.*nothing"):
        find_checkpoint(str(tmp_path))
    last.touch()
    with pytest.raises(WeightsError, match=r"(?s)last\.ckpt.*finetuning\.checkpoint=last"):
        find_checkpoint(str(tmp_path))
    best.touch()
    assert find_checkpoint(str(tmp_path)) == best
    assert find_checkpoint(tmp_path, "last") == last
    assert find_checkpoint(str(tmp_path / "checkpoints")) == best
    assert find_checkpoint(str(last), "best") == last


def test_what_others_made_is_no_model_that_predicts(tmp_path: Path) -> None:
    for folder, kind in ((_bundle(tmp_path / "a"), "MONAI bundle"), (NNUNET, "nnU-Net")):
        with pytest.raises(
            WeightsError, match=rf"fine-tuned before(?s:.*){kind}(?s:.*)finetune\.py"
        ):
            find_checkpoint(folder)


def test_missing_path_lists_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model_v2.ckpt").touch()
    said = rf"(?s)no such file or folder.*in {tmp_path}: model_v2\.ckpt.*did you mean.*model_v2"
    with pytest.raises(WeightsError, match=said):
        find_checkpoint(str(tmp_path / "model.ckpt"))
    with pytest.raises(WeightsError, match="no such folder"):
        find_checkpoint(str(tmp_path / "a" / "model.ckpt"))


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.ckpt").touch()
    assert find_checkpoint("~/a.ckpt") == tmp_path / "a.ckpt"


def _weights(path: Path, prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"{prefix}w": torch.ones(2)}, path)
    return path


def test_a_run_and_a_file(tmp_path: Path) -> None:
    for name in ("best", "last"):
        _weights(tmp_path / "checkpoints" / f"{name}.ckpt")
    assert read_source(tmp_path).path.name == "best.ckpt"
    assert read_source(tmp_path, SourceOptions("last")).path.name == "last.ckpt"
    assert read_source(str(tmp_path / "checkpoints" / "last.ckpt")).path.name == "last.ckpt"


def _bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{}")
    network = {"_target_": "monai.networks.nets.SegResNet", "spatial_dims": 3, "out_channels": 2}
    (folder / "configs" / "train.json").write_text(json.dumps({"network_def": network}))
    _weights(folder / "models" / "model.pt", "net.")
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_bundle(tmp_path: Path, packed: bool) -> None:
    path = _bundle(tmp_path / "brats")
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "brats"), "zip", tmp_path, "brats"))
    source = read_source(path)
    assert source.origin["format"] == "MONAI bundle"
    assert source.models is not None
    assert source.models["name"] == "segresnet"
    assert set(source.tensors) == {"net.w"}
    assert set(read_source(path, SourceOptions(key_prefix="net.")).tensors) == {"w"}
    with pytest.raises(ConfigError, match=r"key_prefix=model\..*"):
        read_source(path, SourceOptions(key_prefix="model."))


def test_an_nnunet_folder_is_handed_on(tmp_path: Path) -> None:
    for name in ("plans.json", "dataset.json"):
        (tmp_path / name).write_text("{}")
    _weights(tmp_path / "fold_0" / "checkpoint_best.pth")
    with pytest.raises(WeightsError) as caught:
        read_source(tmp_path)
    assert "no weights can be read" not in str(caught.value)


def test_a_folder_that_is_nothing_of_this(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(WeightsError) as caught:
        read_source(tmp_path)
    text = str(caught.value)
    for said in ("notes.txt", "checkpoints/best.ckpt", "configs/metadata.json", "plans.json"):
        assert said in text
    inner = _weights(tmp_path / "release" / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"finetuning\.pretrained={inner}"):
        read_source(tmp_path)


def test_an_archive_that_is_nothing_of_this(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("release/model.pth", b"x")
    with pytest.raises(WeightsError, match=r"(?s)not one of torch\.save.*give release/model\.pth"):
        read_source(path)
