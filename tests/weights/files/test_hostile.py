"""Checkpoints made to do harm, or damaged: none runs anything, each gets one clear message."""

from __future__ import annotations

import json
import pickle
import random
import resource
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from hsf_finetune.config.settings import UNetSettings
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import UserError
from hsf_finetune.weights.files.archive import extract_safely
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.transfer_weights import transfer

SMALL = UNetSettings(channels=[4, 8, 8], strides=[2, 2])
LONGEST_SECONDS = 3
LARGEST_KILOBYTES = 300_000


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile code would make; it must not be there in the end."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code out of the file has run"


def _error(read: Callable[[], object]) -> str:
    """The message, after a moment and without much memory."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        read()
    assert time.monotonic() - began < LONGEST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LARGEST_KILOBYTES
    text = str(caught.value)
    assert text.count("  file: ") == 1
    assert text.count("  found: ") == 1
    assert text.count("  fix: ") == 1
    return text


def _read(path: Path) -> str:
    text = _error(lambda: read_checkpoint(path))
    assert str(path) in text
    return text


def _repickled(path: Path, old: bytes, new: bytes) -> None:
    """Replaces bytes of the pickle in a file of torch.save, the rest kept as it is."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if name.endswith("data.pkl"):
                assert content.count(old) == 1
                content = content.replace(old, new)
            archive.writestr(name, content)


def _int(value: int) -> bytes:
    """A number as torch.save's protocol has it."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _saved_now(content: object, path: Path) -> None:
    torch.save(content, path)


def _saved_then(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


SAVERS = {"now": _saved_now, "before 1.6": _saved_then}


# ----------------------------------------------- 1 and 2: archives that lead elsewhere
@pytest.mark.parametrize("name", ["../canary", "x/../../canary", "{absolute}", "..\\canary"])
def test_an_archive_that_writes_elsewhere(tmp_path: Path, canary: Path, name: str) -> None:
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("configs/metadata.json", "{}")
        archive.writestr(name.format(absolute=canary), "x")
    text = _error(lambda: extract_safely(path, tmp_path / "out"))
    assert "could do harm" in text
    assert not (tmp_path / "out").exists()
    text = _read(path)
    assert "not one of torch.save" in text


def test_a_link_in_an_archive(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "bundle.zip"
    link = zipfile.ZipInfo("out")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, str(tmp_path))
        archive.writestr("out/canary", "x")
    text = _error(lambda: extract_safely(path, tmp_path / "out"))
    assert "could do harm" in text
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------- 3: more than it holds
def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for length in (1 << 30, 99_000_000, 2**63 - 1, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + b'{"w": 1}')
        assert "claims more than it holds" in _read(path)


@pytest.mark.parametrize("shape", [[10**6, 10**6], [2**62, 2**62], [-1], [1.5], "x"])
def test_a_shape_larger_than_the_file(tmp_path: Path, shape: object) -> None:
    path = tmp_path / "a.safetensors"
    header = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}}
    for offsets in ([0, 16], [0, 4 * 10**12], [16, 0]):
        header["w"]["data_offsets"] = offsets
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
        assert "damaged or incomplete safetensors" in _read(path)


@pytest.mark.parametrize("saver", ["now", "before 1.6"])
@pytest.mark.parametrize("count", [2 * 10**9, 10**12, 2**62, -1])
def test_a_storage_larger_than_the_file(tmp_path: Path, saver: str, count: int) -> None:
    path = tmp_path / "a.ckpt"
    SAVERS[saver]({"w": torch.zeros(12345)}, path)
    old, new = b"cpuq\x06" + _int(12345), b"cpuq\x06" + _int(count)
    if saver == "now":
        _repickled(path, old, new)
    else:
        raw = path.read_bytes()
        assert raw.count(old[3:]) == 1
        path.write_bytes(raw.replace(old[3:], new[3:]))
    assert "claims more than it holds" in _read(path)


def test_a_tensor_that_repeats_one_number(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"vast": torch.ones(1).expand(10**7, 10**5)}, path)
    assert "plain dense" in _read(path)


def test_a_compressed_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert "claims more than it holds" in _read(path)


# ------------------------------------------------------------------- 4: truncated
@pytest.mark.parametrize("saver", ["now", "before 1.6", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated(tmp_path: Path, saver: str, share: float) -> None:
    path = tmp_path / "a.ckpt"
    weights = {f"block{i}.weight": torch.randn(2000) for i in range(3)}
    if saver == "safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    else:
        SAVERS[saver](weights, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    text = _read(path)
    assert "not a readable checkpoint" in text or "claims more than it holds" in text
    assert "again" in text


# ----------------------------------------------------------------- 5: wrong magic
@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04" + bytes(200), "damaged or incomplete archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(200), "gzip"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b'{"weights": [1, 2]}', "JSON"),
        (b"\x80\x02" + bytes(range(256)), "damaged or incomplete pickle"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (random.Random(1).randbytes(4096), "torch cannot read"),
        (bytes(4096), "torch cannot read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_wrong_magic(tmp_path: Path, start: bytes, said: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(start)
    assert said in _read(path)


# ------------------------------------------------- 6 and 7: weights that are no use
def test_missing_keys(tmp_path: Path) -> None:
    anatomy = build(SMALL, 1, 2)
    state = anatomy.network.state_dict()
    path = tmp_path / "a.ckpt"
    torch.save({name: state[name] for name in list(state)[: len(state) // 3]}, path)
    before = {name: tensor.clone() for name, tensor in state.items()}
    text = _error(
        lambda: transfer(anatomy, read_checkpoint(path), HeadRequest(("background", "A")))
    )
    assert str(path) in text
    assert "does not fit" in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_that_are_not_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"good": torch.ones(3), "bad": torch.tensor([1.0, float("nan")]).to(dtype)}, path)
    text = _read(path)
    assert "NaN or infinite values in 1 of 2 tensors" in text


# ------------------------------------------------------------------ 8: a web page
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".zip"])
@pytest.mark.parametrize("start", ["<!DOCTYPE html>\n", "\n <HTML lang='en'>", "<?xml?>"])
def test_a_web_page(tmp_path: Path, suffix: str, start: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_text(start + "<body>403 Forbidden: sign in to download this file</body></html>")
    text = _read(path)
    assert "a web page" in text
    assert "download it again" in text
