"""Pickles are read as data: what other classes hold is kept, and nothing that they name runs."""

from __future__ import annotations

import argparse
import collections
import contextlib
import copyreg
import datetime
import enum
import functools
import importlib
import io
import os
import pathlib
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.inert_pickle import InertUnpickler
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.files.stand_in import Global, StandIn
from hsf_finetune.weights.files.torch_file import load_torch_file

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers(-5, 5))
        | st.binary()
    ),
    max_leaves=12,
)


def _load(raw: bytes) -> Any:
    return InertUnpickler(io.BytesIO(raw)).load()


class _Call:
    """Unpickled carelessly, calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class _Node(dict[str, Any]):
    """As the configurations of yacs, addict and easydict are: a dictionary with attributes."""


class _Mode(enum.Enum):
    FAST = "fast"


class _Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(3))
        self.reduce = functools.partial(torch.mean, dim=0)


# ------------------------------------------------------------------------- plain values
@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back_in_every_protocol(value: object, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"behind")
    assert InertUnpickler(stream).load() == value
    assert stream.read() == b"behind"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_dictionaries_of_other_kinds(protocol: int) -> None:
    given_ = collections.OrderedDict([("b", 1), ("a", 2)])
    assert list(_load(pickle.dumps(given_, protocol)).items()) == [("b", 1), ("a", 2)]
    assert _load(pickle.dumps(collections.Counter("aab"), protocol)) == {"a": 2, "b": 1}
    counts = collections.defaultdict(list, {"x": [1]})
    assert _load(pickle.dumps(counts, protocol)) == {"x": [1]}


# --------------------------------------------------------------- objects of other classes
def _others() -> dict[str, Any]:
    config = OmegaConf.create({"model": {"name": "unet", "classes": ["background", "CA1"]}})
    node = _Node(MODEL=_Node(NAME="unet"))
    node.__dict__["frozen"] = True
    return {
        "omegaconf": config,
        "yacs": node,
        "numpy scalar": np.float64(0.5),
        "numpy array": np.arange(6.0).reshape(2, 3),
        "enum": _Mode.FAST,
        "namespace": argparse.Namespace(lr=1e-3),
        "path": pathlib.Path("folder/x"),
        "date": datetime.datetime(2024, 1, 1),
        "deque": collections.deque([1, 2]),
        "partial": functools.partial(os.system, "true"),
        "optimiser": torch.optim.Adam([nn.Parameter(torch.ones(2))]),
        "loss": _Loss(),
        "slice": slice(1, 2),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "generator state": torch.get_rng_state(),
        "set of objects": {_Mode.FAST, frozenset({1})},
        "object with keys": {_Mode.FAST: 1, (1, "a"): 2, ((1, 2), 3): 3},
    }


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", _others())
def test_weights_load_beside_any_object(
    tmp_path: Path, kind: str, protocol: int, old: bool
) -> None:
    path, tensor = tmp_path / "a.ckpt", torch.arange(6.0).reshape(2, 3)
    content = {"hyper_parameters": {"x": _others()[kind]}, "state_dict": {"net.weight": tensor}}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
    imported = set(sys.modules)
    assert torch.equal(read_checkpoint(path).tensors["net.weight"], tensor)
    assert set(sys.modules) <= imported


def test_what_an_object_held_is_kept(tmp_path: Path) -> None:
    others = _others()
    torch.save(others, tmp_path / "a.pt")
    found = load_torch_file(tmp_path / "a.pt")
    assert isinstance(found, dict)
    assert found["namespace"].fields()["lr"] == 1e-3
    assert found["yacs"].fields()["MODEL"].fields()["NAME"] == "unet"
    assert set(found["omegaconf"].fields()) == {"model"}
    assert found["date"].name == "datetime.datetime"
    assert found["enum"].arguments == ("fast",)
    assert found["dtype"] == Global("torch.float16")
    assert "not loaded" in repr(found["loss"])
    assert found["numpy array"].array().tolist() == others["numpy array"].tolist()
    assert found["numpy scalar"].array() is None


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "|b1", "<f2"])
def test_weights_that_are_numpy_arrays(tmp_path: Path, dtype: str) -> None:
    values = np.asfortranarray(np.arange(6).reshape(2, 3)).astype(dtype)
    torch.save({"state_dict": {"w": values}}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").tensors["w"].tolist() == values.tolist()


def test_arrays_that_are_no_weights(tmp_path: Path) -> None:
    for array, said in (
        (np.arange(3.0).astype(">f8"), "plain dense"),
        (np.array(["a"]), "weights"),
    ):
        torch.save({"w": array}, tmp_path / "a.pt")
        with pytest.raises(WeightsError, match=said):
            read_checkpoint(tmp_path / "a.pt")


def test_subclasses_of_tensors(tmp_path: Path) -> None:
    from monai.data import MetaTensor

    content = {"w": MetaTensor(torch.arange(3.0)), "p": nn.Parameter(torch.ones(2))}
    content["p"].note = "with an attribute"
    torch.save(content, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt").tensors
    assert found["w"].tolist() == [0, 1, 2]
    assert found["p"].tolist() == [1, 1]
    assert {type(tensor) for tensor in found.values()} == {torch.Tensor}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.uint16, torch.bool])
def test_types_of_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.arange(8).to(dtype)
    torch.save({"w": whole, "view": whole[2:6:2], "empty": whole[:0]}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt").tensors
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    assert found["view"].float().tolist() == whole[2:6:2].float().tolist()
    assert found["empty"].shape == (0,)


# ---------------------------------------------------------------------- code in a pickle
CALLS: dict[str, Callable[[str], Any]] = {
    "system": lambda canary: _Call(os.system, f"touch '{canary}'"),
    "exec": lambda canary: _Call(exec, f"open({canary!r}, 'w')"),
    "eval": lambda canary: _Call(eval, f"open({canary!r}, 'w')"),
    "open": lambda canary: _Call(io.open, canary, "w"),
    "sympy": lambda canary: _Call(sympy.Tuple, f"open({canary!r}, 'w')"),
    "sympify": lambda canary: _Call(sympy.sympify, f"open({canary!r}, 'w')"),
    "save": lambda canary: _Call(np.save, canary, 1),
    "nested file": lambda canary: _Call(
        torch.storage._load_from_bytes, pickle.dumps(_Call(os.system, f"touch '{canary}'"))
    ),
    "partial": lambda canary: functools.partial(os.system, f"touch '{canary}'"),
    "rebuild of another type": lambda canary: _Call(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (f"touch '{canary}'",), {}
    ),
    "reload": lambda canary: _Call(importlib.reload, "os"),
}


def _opcodes(canary: str) -> dict[str, bytes]:
    command, system = pickle.dumps(f"touch '{canary}'", 2)[2:-1], b"cposix\nsystem\n"
    text = f"touch '{canary}'".encode()
    build = b"c__main__\nX\n)\x81"
    return {
        "GLOBAL REDUCE": system + b"(" + command + b"tR.",
        "STACK_GLOBAL REDUCE": b"\x8c\x05posix\x8c\x06system\x93" + command + b"\x85R.",
        "INST": b"(" + command + b"iposix\nsystem\n.",
        "INST text": b"(S'" + text.replace(b"'", b"\\'") + b"'\niposix\nsystem\n.",
        "OBJ": b"(" + system + command + b"o.",
        "NEWOBJ": b"csubprocess\nPopen\n" + command + b"\x85\x81.",
        "NEWOBJ_EX": b"csubprocess\nPopen\n" + command + b"\x85}\x92.",
        "BUILD state": build + b"}X\x0c\x00\x00\x00__setstate__" + system + b"s" + b"b" + command + b"b.",
        "BUILD class": b"ccollections\nOrderedDict\nN}X\x08\x00\x00\x00__init__" + system + b"s\x86b.",
        "BUILD builtins": b"cbuiltins\n__dict__\n}X\x05\x00\x00\x00print" + system + b"sb.",
        "BUILD dictionary": b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00items" + system + b"sb.",
        "attribute of a name": b"\x80\x04\x8c\x03os.\x8c\x06system\x93" + command + b"\x85R.",
        "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x10__import__.x.y\x93\x8c\x02os\x85R.",
        "call of a text": command + b")R.",
        "persistent id": command + b"Q.",
        "persistent text": b"Pcposix\n.",
        "persistent storage": b"(X\x07\x00\x00\x00storage" + system + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
        "EXT1": b"\x80\x02\x82\x01)R.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00)R.",
        "buffer": b"\x80\x05\x97.",
    }  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    """A file that hostile code would make; it must not be there in the end."""
    path = tmp_path / "canary"
    yield str(path)
    assert not path.exists(), "code out of the file has run"


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("call", CALLS)
def test_calls_are_never_made(
    tmp_path: Path, canary: str, call: str, protocol: int, old: bool
) -> None:
    path = tmp_path / "a.ckpt"
    content = {"evil": CALLS[call](canary), "state_dict": {"w": torch.ones(2)}}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
    assert read_checkpoint(path).tensors["w"].tolist() == [1, 1]


@pytest.mark.parametrize("kind", _opcodes(""))
def test_every_instruction_that_could_call(canary: str, kind: str) -> None:
    copyreg._inverted_registry[1] = ("os", "system")  # type: ignore[attr-defined]
    copyreg._extension_cache[1] = os.system  # type: ignore[attr-defined]
    try:
        found = _load(_opcodes(canary)[kind])
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError) as error:
        found = str(error)
    finally:
        del copyreg._inverted_registry[1], copyreg._extension_cache[1]  # type: ignore[attr-defined]
    assert isinstance(found, (StandIn, Global, str, dict))
    assert collections.OrderedDict([(1, 2)]) == {1: 2}
    assert dict(found) == {} if isinstance(found, dict) else True


def test_the_canary_would_appear(tmp_path: Path) -> None:
    for kind, raw in _opcodes(str(tmp_path / "other")).items():
        if kind in ("GLOBAL REDUCE", "STACK_GLOBAL REDUCE", "INST", "OBJ"):
            pickle.loads(raw)
            assert (tmp_path / "other").exists(), kind
            (tmp_path / "other").unlink()


def test_a_module_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trojan.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert _load(b"ctrojan\nWeights\n)R.").name == "trojan.Weights"
    assert "trojan" not in sys.modules
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_pickle_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    content = {"hyper_parameters": _others(), "state_dict": {"w": torch.arange(6.0)}}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    whole, random_ = (tmp_path / "a.pt").read_bytes(), random.Random(seed)
    for _ in range(100):
        raw = bytearray(whole)
        for _ in range(random_.choice((1, 2, 8))):
            place = random_.randrange(len(raw))
            raw[place] = random_.choice((random_.randrange(256), *b"Rbo\x81\x85\x93Q.i0)}]st("))
        (tmp_path / "a.pt").write_bytes(raw)
        # Nothing but the one error.
        with contextlib.suppress(WeightsError):
            read_checkpoint(tmp_path / "a.pt")
