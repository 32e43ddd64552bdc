"""Small files that would take very long, or very much memory, end soon."""

from __future__ import annotations

import contextlib
import io
import pickle
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.class_names import find_class_names
from hsf_finetune.weights.files.inert_pickle import InertUnpickler
from hsf_finetune.weights.files.read_checkpoint import check_values
from hsf_finetune.weights.files.stand_in import StandIn
from hsf_finetune.weights.files.state_dict import find_state_dict

LONGEST_SECONDS = 10
LARGEST_KILOBYTES = 1_000_000


def _nested_tuples(levels: int) -> bytes:
    return b")" + b"2\x86" * levels


_LARGE_INTEGER = b"\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b"q\x00"
BOMBS: dict[str, bytes] = {
    "many sets": b"(" + b"\x8f" * 5_000_000,
    "many dictionaries": b"(" + b"}" * 5_000_000 + b"t.",
    "memo at a high number": b"Nr\xff\xff\xff\x7f.",
    "long bytes": b"\x8e" + struct.pack("<Q", 1 << 62),
    "long text": b"\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "long byte array": b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "long frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "long integer": b"\x8b\xff\xff\xff\x7f.",
    "nested tuples as a key": b"}" + _nested_tuples(64) + b"Ns.",
    "nested tuples in a set": b"\x8f(" + _nested_tuples(64) + b"\x90.",
    "nested tuples, frozen": b"(" + _nested_tuples(64) + b"\x91.",
    "nested tuples as arguments": b"cbuiltins\nset\n](" + _nested_tuples(64) + b"e\x85R.",
    "range": b"cbuiltins\nset\ncbuiltins\nrange\n" + pickle.dumps(10**12)[2:-1] + b"\x85R\x85R.",
    "byte array by number": b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x7f\x85R.",
    "numpy array of a size": b"cnumpy\nzeros\n\x8a\x05\x00\x00\x00\x00\x7f\x85R.",
    "deep lists": b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "large integers as keys": b"}" + _LARGE_INTEGER + b"Ns" + b"h\x00Ns" * 100_000 + b".",
    "copies of a dictionary": b"}(" + b"".join(b"K%cN" % n for n in range(200)) * 100 + b"uq\x000"
    + b"(" + b"ccollections\nOrderedDict\nh\x00\x85R" * 100_000 + b"t.",
    "copies of a text": b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    + b"X\x06\x00\x00\x00latin1q\x010(" + b"c_codecs\nencode\nh\x00h\x01\x86R" * 100_000 + b"t.",
    "long names": b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x000("
    + b"h\x00h\x00\x93" * 100_000 + b"t.",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_end_soon(kind: str) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(Exception):
        InertUnpickler(io.BytesIO(BOMBS[kind])).load()
    assert time.process_time() - began < LONGEST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LARGEST_KILOBYTES


def _network_of(levels: int, width: int) -> StandIn:
    """A network in networks, each of which has the same fields."""
    module = StandIn("torch.nn.Module")
    tensors = {f"t{n}": torch.ones(1) for n in range(width)}
    for _ in range(levels):
        outer = StandIn("torch.nn.Module")
        outer.state = {"_modules": {"m" * 100: module, "n" * 100: module}, "_parameters": tensors}
        module = outer
    return module


def _self_holding(width: int) -> dict[str, Any]:
    content: dict[str, Any] = {f"t{n}": torch.ones(1) for n in range(width)}
    return content | dict.fromkeys(("state_dict", "model", "net", "network"), content)


CONTENTS: dict[str, Callable[[], object]] = {
    "deep network": lambda: _network_of(10_000, 10),
    "wide network": lambda: _network_of(300, 10_000),
    "dictionaries in themselves": lambda: _self_holding(20_000),
    "settings in themselves": lambda: {
        "w": torch.ones(2),
        "config": (lambda d: d.update({f"k{n}": d for n in range(10_000)}) or d)({}),
    },
    "views of one storage": lambda: dict.fromkeys(map(str, range(3000)), torch.ones(1 << 20)),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_contents_that_swell_end_soon(kind: str, tmp_path: Path) -> None:
    content, described = CONTENTS[kind](), {}
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(WeightsError):
        found = find_state_dict(content, tmp_path).tensors
        described = content if isinstance(content, dict) else {}
        find_class_names(described, found)
        check_values(found, tmp_path)
    assert time.process_time() - began < LONGEST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LARGEST_KILOBYTES
