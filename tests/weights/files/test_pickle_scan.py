"""Pickles are read without being run, in every protocol."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.weights.files.pickle_scan import PickleGlobal, scan_pickle

every_protocol = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers())
    ),
    max_leaves=12,
)


class _System:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@every_protocol
def test_globals_are_named(protocol: int) -> None:
    content = [collections.OrderedDict(a=1), _System(), collections.Counter, 3.5, {1, 2}]
    found = scan_pickle(io.BytesIO(pickle.dumps(content, protocol)))
    assert {"collections.OrderedDict", "collections.Counter"} <= found.globals
    assert {"posix.system", "nt.system"} & found.globals


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_call_for_nothing_harmful(value: object, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"behind")
    found = scan_pickle(stream)
    assert {name.replace("__builtin__", "builtins") for name in found.globals} <= {
        "_codecs.encode",
        "builtins.bytes",
        "builtins.object",
        "builtins.set",
        "copy_reg._reconstructor",
    }
    assert found.persistent == []
    assert stream.read() == b"behind"


@given(st.binary(max_size=60))
def test_anything_else_is_an_error_and_no_other(content: bytes) -> None:
    try:
        scan_pickle(io.BytesIO(content))
    except ValueError:
        return
    assert b"." in content


def test_storages_are_told_however_a_pickle_is_put_together(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    torch.save({"a": shared, "b": shared[2:], "c": torch.ones(4).half()}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        found = scan_pickle(io.BytesIO(archive.read("a/data.pkl")))
    assert found.persistent == [
        ("storage", PickleGlobal("torch.FloatStorage"), "0", "cpu", 6),
        ("storage", PickleGlobal("torch.FloatStorage"), "0", "cpu", 6),
        ("storage", PickleGlobal("torch.HalfStorage"), "1", "cpu", 4),
    ]
