"""Weights in several files are read by their index, and a missing file is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.sources.read_source import find_single_file, read_source

WEIGHTS = {"a.weight": torch.ones(2, 2), "a.bias": torch.zeros(2), "b.weight": torch.ones(3)}
FILES = {"a.weight": 1, "a.bias": 1, "b.weight": 2}


def _sharded(folder: Path, kind: str = "safetensors") -> Path:
    folder.mkdir()
    stem, suffix = ("model", kind) if kind == "safetensors" else ("pytorch_model", "bin")
    names = {name: f"{stem}-0000{n}-of-00002.{suffix}" for name, n in FILES.items()}
    for file in set(names.values()):
        part = {name: tensor for name, tensor in WEIGHTS.items() if names[name] == file}
        save_file(part, folder / file) if kind == "safetensors" else torch.save(part, folder / file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": names}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("by_index", [False, True])
def test_every_file_is_read(tmp_path: Path, kind: str, by_index: bool) -> None:
    index = _sharded(tmp_path / "release", kind)
    source = read_source(index if by_index else index.parent)
    assert {n: t.tolist() for n, t in source.tensors.items()} == {
        n: t.tolist() for n, t in WEIGHTS.items()
    }
    assert source.path == index
    assert source.origin["format"] == "in several files"


def test_the_digest_is_of_all_files(tmp_path: Path) -> None:
    first, second = (read_source(_sharded(tmp_path / name)).digest for name in ("a", "b"))
    assert first == second
    save_file({"b.weight": torch.zeros(3)}, tmp_path / "b" / "model-00002-of-00002.safetensors")
    assert read_source(tmp_path / "b").digest != first
    with pytest.raises(ConfigError, match="several files have no checksum"):
        find_single_file(tmp_path / "b")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    index = _sharded(tmp_path / "a")
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"(?s)1 of 2 files.*no model-00002-of-00002\.safe"):
        read_source(index.parent)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    index = _sharded(tmp_path / "a")
    save_file({"c": torch.ones(1)}, index.parent / "model-00002-of-00002.safetensors")
    with pytest.raises(WeightsError, match=r"(?s)model-00002.*no b\.weight"):
        read_source(index.parent)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/a.bin", "..\\a"])
def test_files_elsewhere_are_not_read(tmp_path: Path, name: str) -> None:
    index = _sharded(tmp_path / "a")
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError, match="outside its folder"):
        read_source(index)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {"a": 1}}', "[" * 100_000])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    index = _sharded(tmp_path / "a")
    index.write_text(text)
    with pytest.raises(WeightsError, match="no index of weights"):
        read_source(index)
