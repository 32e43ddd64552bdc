"""Tensors in a pickle that their storage does not hold, or that are no dense arrays."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint


def _storage(count: int = 4) -> bytes:
    text = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    return text + pickle.dumps(count, 2)[2:-1] + b"tQ"


def _tensor(offset: object, size: object, stride: object, storage: bytes | None = None) -> bytes:
    shape = b"".join(pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride))
    rest = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + (storage or _storage()) + shape + rest + b"tR"


def _saved(path: Path, tensor: bytes) -> Path:
    """A file of torch.save with four numbers, and this pickle of a tensor in place of its own."""
    torch.save({"w": torch.arange(4.0)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            new = b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s."
            archive.writestr(name, new if name.endswith("data.pkl") else content)
    return path


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (4, (1,), (1,)),
        (1, (4,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 2), (1,)),
        (0, (10**10,), (1,)),
        (0, (2**62, 2**62), (0, 0)),
        (0, (10**7, 10**5), (0, 0)),
        (0, (2,), (2**62,)),
        (True, (2,), (1,)),
        (0, 4, (1,)),
        (0, (1,) * 65, (1,) * 65),
        (0.0, (2,), (1,)),
    ],
)
def test_a_tensor_beyond_its_storage(
    tmp_path: Path, offset: object, size: object, stride: object
) -> None:
    path = _saved(tmp_path / "a.pt", _tensor(offset, size, stride))
    with pytest.raises(WeightsError, match=r"not a readable checkpoint|plain dense"):
        read_checkpoint(path)


def test_a_tensor_inside_its_storage(tmp_path: Path) -> None:
    path = _saved(tmp_path / "a.pt", _tensor(1, (2,), (2,)))
    assert read_checkpoint(path).tensors["w"].tolist() == [1, 3]


@pytest.mark.parametrize(
    "storage", [b"N", b"cposix\nsystem\n", b"X\x01\x00\x00\x000", _storage(10**12), _storage(-1)]
)
def test_a_tensor_without_a_storage(tmp_path: Path, storage: bytes) -> None:
    path = _saved(tmp_path / "a.pt", _tensor(0, (2,), (1,), storage))
    with pytest.raises(WeightsError, match=r"not a readable checkpoint|claims more"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["sparse", "quantised", "without data"])
def test_tensors_that_are_not_dense_are_refused_and_not_left_out(tmp_path: Path, kind: str) -> None:
    tensors = {
        "sparse": torch.eye(3).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "without data": torch.empty(3, device="meta"),
    }
    torch.save({"good": torch.ones(1), "bad": tensors[kind]}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"(?s)plain dense.*bad"):
        read_checkpoint(tmp_path / "a.pt")
