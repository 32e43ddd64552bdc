"""Checkpoint files are read by what they hold, whatever program wrote them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from monai.networks.nets import SegResNet
from safetensors.torch import save_file
from torch import nn

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint

REMARKS = {"format": 1, "classes": ["background", "DG"], "models": {"name": "unet"}}


def _save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def _ours(path: Path, **more: object) -> Path:
    weights = {"network.head.bias": torch.ones(2), "loss.matrix": torch.zeros(2, 2)}
    return _save(path, {"epoch": 3, "state_dict": weights, "hsf_finetune": REMARKS} | more)


def test_our_format_gives_the_networks_own_names_and_the_classes(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(_ours(tmp_path / "a.ckpt"))
    assert set(checkpoint.tensors) == {"head.bias"}
    assert checkpoint.classes == ("background", "DG")
    assert checkpoint.meta == REMARKS
    assert len(checkpoint.digest) == 64
    assert not checkpoint.averaged


def test_averaged_weights_are_taken_unless_refused(tmp_path: Path) -> None:
    raw = {"network.head.bias": torch.full((2,), 5.0)}
    path = _ours(tmp_path / "a.ckpt", current_model_state=raw)
    averaged, current = read_checkpoint(path), read_checkpoint(path, use_ema=False)
    assert (averaged.averaged, current.averaged) == (True, False)
    assert averaged.tensors["head.bias"].tolist() == [1, 1]
    assert current.tensors["head.bias"].tolist() == [5, 5]
    plain = read_checkpoint(_ours(tmp_path / "b.ckpt"), use_ema=False)
    assert plain.tensors["head.bias"].tolist() == [1, 1]


@pytest.mark.parametrize("nest", [[], ["state_dict"], ["model"], ["network"], ["x", "model"]])
def test_plain_state_dicts_are_found_wherever_they_usually_lie(
    tmp_path: Path, nest: list[str]
) -> None:
    content: object = {"net.weight": nn.Parameter(torch.ones(3)), "_extra_state": "text"}
    for key in reversed([key.replace("x", "state_dict") for key in nest]):
        content = {key: content, "epoch": 1}
    checkpoint = read_checkpoint(_save(tmp_path / "a.pth", content))
    assert set(checkpoint.tensors) == {"net.weight"}
    assert not checkpoint.tensors["net.weight"].requires_grad
    assert checkpoint.classes is None
    assert checkpoint.meta is None


def test_digest_tells_files_apart(tmp_path: Path) -> None:
    def read(value: float) -> Checkpoint:
        return read_checkpoint(_save(tmp_path / "a.pt", {"w": torch.tensor(value)}))

    assert read(1.0).digest == read(1.0).digest != read(2.0).digest


def test_a_network_that_was_saved_whole(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.Sequential(nn.BatchNorm3d(2), nn.PReLU()))
    network[1].register_buffer("passing", torch.ones(1), persistent=False)
    expected = network.state_dict()
    for content in (network, {"model": network, "epoch": 3}):
        found = read_checkpoint(_save(tmp_path / "model.pt", content))
        assert found.tensors.keys() == expected.keys()
        assert all(torch.equal(found.tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"\n<html>sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"just some notes\n", "a text file"),
        (bytes(range(256)) * 4, "torch cannot read"),
    ],
)
def test_other_files_are_recognised(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_truncated_checkpoint(tmp_path: Path, share: float) -> None:
    path = _save(tmp_path / "a.ckpt", {"w": torch.randn(2000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match="damaged or incomplete archive"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [{"epoch": 3, "state_dict": {}}, [torch.ones(1)], {}, 3])
def test_files_without_weights(tmp_path: Path, content: object) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        read_checkpoint(_save(tmp_path / "a.ckpt", content))


def test_our_remarks_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'network\.'"):
        read_checkpoint(_ours(tmp_path / "a.ckpt", state_dict={"other": torch.ones(1)}))


@pytest.mark.parametrize("remarks", [{"format": 99}, {}, "text"])
def test_other_format_versions(tmp_path: Path, remarks: object) -> None:
    with pytest.raises(WeightsError, match="another format version"):
        read_checkpoint(_ours(tmp_path / "a.ckpt", hsf_finetune=remarks))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    weights = {"good": torch.ones(3), "bad": torch.tensor([1.0, value])}
    with pytest.raises(WeightsError, match=r"(?s)1 of 2 tensors.*found: +bad"):
        read_checkpoint(_save(tmp_path / "a.ckpt", weights))


def test_tensors_that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.ckpt", {"vast": torch.ones(1).expand(10**7, 10**5)})
    with pytest.raises(WeightsError, match=r"(?s)plain dense.*vast"):
        read_checkpoint(path)
    path = _save(tmp_path / "b.ckpt", {"sparse": torch.eye(3).to_sparse()})
    with pytest.raises(WeightsError, match="plain dense"):
        read_checkpoint(path)


def test_a_folder_or_nothing_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.ckpt"):
        with pytest.raises(WeightsError, match="no checkpoint file"):
            read_checkpoint(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = _ours(tmp_path / "a.ckpt")
    path.chmod(0)
    with pytest.raises(WeightsError, match="cannot be opened"):
        read_checkpoint(path)


# ------------------------------------------------------------------- other programs
def test_a_safetensors_file_whatever_its_suffix(tmp_path: Path) -> None:
    weights = {"net.w": torch.randn(2, 3), "net.half": torch.randn(4).to(torch.bfloat16)}
    for name in ("a.safetensors", "a.ckpt"):
        save_file(weights, tmp_path / name, metadata={"licence": "MIT"})
        checkpoint = read_checkpoint(tmp_path / name)
        assert checkpoint.origin == {"format": "safetensors", "remarks": {"licence": "MIT"}}
        assert set(checkpoint.tensors) == set(weights)
        assert all(torch.equal(checkpoint.tensors[key], weights[key]) for key in weights)
    # The tensors live on when the file is gone or written again.
    (tmp_path / "a.ckpt").write_bytes(bytes(200))
    assert torch.equal(checkpoint.tensors["net.w"], weights["net.w"])


@pytest.mark.parametrize("padding", range(0, 256, 8))
def test_a_header_of_any_length(tmp_path: Path, padding: int) -> None:
    # Its first byte may be that of a pickle.
    save_file({"w": torch.ones(1)}, tmp_path / "a.pt", metadata={"note": "x" * padding})
    assert set(read_checkpoint(tmp_path / "a.pt").tensors) == {"w"}


def test_a_torch_file_named_safetensors(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors", {"w": torch.ones(2)})
    assert read_checkpoint(path).origin == {"format": "PyTorch"}


def test_the_format_before_torch_1_6(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    content = {"state_dict": {"w": whole, "view": whole[2:4], "n": torch.tensor(3)}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    tensors = read_checkpoint(tmp_path / "a.pth").tensors
    assert tensors["w"].tolist() == whole.tolist()
    assert tensors["view"].tolist() == [2, 3]


def test_an_archive_without_checksums(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = _save(tmp_path / "a.pt", {"w": torch.arange(4.0)})
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_checkpoint(path).tensors["w"].tolist() == [0, 1, 2, 3]


def test_the_tensors_of_torchscript_are_read_without_its_program(tmp_path: Path) -> None:
    network = SegResNet(init_filters=4, blocks_down=[1, 1], blocks_up=[1], norm="batch")
    torch.jit.save(torch.jit.script(network), tmp_path / "a.ts")
    found, expected = read_checkpoint(tmp_path / "a.ts").tensors, network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# ---------------------------------------------------------------- prefix and origin
@pytest.mark.parametrize("prefix", ["student.net.", "student.net"])
def test_a_forced_prefix(tmp_path: Path, prefix: str) -> None:
    names = ("student.net.a.w", "student.net.b", "teacher.net.a.w", "student.network.c")
    path = _save(tmp_path / "a.pt", {name: torch.ones(1) for name in names})
    checkpoint = read_checkpoint(path, key_prefix=prefix)
    assert set(checkpoint.tensors) == {"a.w", "b"}
    assert set(checkpoint.left_out) == {"teacher.net.a.w", "student.network.c"}
    with pytest.raises(ConfigError, match=r"(?s)modle\..*student\. \(3 tensors\).*teacher\. \(1"):
        read_checkpoint(path, key_prefix="modle.")


def test_a_diverged_network_that_is_not_taken_does_no_harm(tmp_path: Path) -> None:
    weights = {"a.w": torch.ones(1), "b.w": torch.tensor([float("nan")])}
    path = _save(tmp_path / "a.pt", weights)
    assert set(read_checkpoint(path, key_prefix="a").tensors) == {"w"}
    with pytest.raises(WeightsError, match="NaN"):
        read_checkpoint(path)


def test_ours_says_which_network_it_is(tmp_path: Path) -> None:
    remarks = REMARKS | {"in_channels": 2}
    checkpoint = read_checkpoint(_ours(tmp_path / "a.ckpt", hsf_finetune=remarks))
    assert (checkpoint.models, checkpoint.in_channels) == ({"name": "unet"}, 2)
    assert checkpoint.origin == {"format": "PyTorch", "key": "state_dict"}
