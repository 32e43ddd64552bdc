"""What a file may load is what the user names for it, and only while it is read."""

from __future__ import annotations

import collections
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, serialization

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.files.trust import allow_globals, may_be_trusted, unsafe_globals


def _offered(text: str) -> tuple[str, ...]:
    """What the message's own line would trust."""
    line = text.split("'finetuning.trust=[")[1].split("]'")[0]
    return tuple(line.split(","))


@pytest.mark.parametrize("now", [True, False])
def test_the_line_to_paste_works_and_only_for_that_load(tmp_path: Path, now: bool) -> None:
    content = {"w": torch.ones(2), "best": np.float64(0.5), "all": np.arange(3), "n": np.int64(2)}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=now)
    with pytest.raises(WeightsError, match=r"(?s)never runs.*multiarray\.scalar") as caught:
        read_checkpoint(tmp_path / "a.ckpt")
    line = _offered(str(caught.value))
    before = set(serialization.get_safe_globals())
    assert read_checkpoint(tmp_path / "a.ckpt", trust=line).tensors["w"].tolist() == [1, 1]
    assert set(serialization.get_safe_globals()) == before
    for left_out in line:
        some = [name for name in line if name != left_out]
        with pytest.raises(WeightsError, match=left_out):
            read_checkpoint(tmp_path / "a.ckpt", trust=some)
    with pytest.raises(WeightsError, match="multiarray"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_whole_network_of_known_layers(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.PReLU())
    torch.save({"model": network}, tmp_path / "a.pt")
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt", trust=_offered(str(caught.value)))
    assert found.tensors.keys() == network.state_dict().keys()


def test_what_other_libraries_allow_is_not_allowed_here(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "d": collections.deque([1])}, tmp_path / "a.pt")
    serialization.add_safe_globals([collections.deque])
    try:
        with pytest.raises(WeightsError, match=r"trust=\[collections\.deque\]"):
            read_checkpoint(tmp_path / "a.pt")
        assert collections.deque in serialization.get_safe_globals()
    finally:
        with serialization.safe_globals([collections.deque]):
            pass
    assert collections.deque not in serialization.get_safe_globals()


def _fail_within(trusted: list[type]) -> None:
    with allow_globals(trusted):
        assert set(serialization.get_safe_globals()) == set(trusted)
        raise KeyError


def test_globals_are_put_back_after_an_error() -> None:
    before = set(serialization.get_safe_globals())
    with pytest.raises(KeyError):
        _fail_within([collections.deque])
    assert set(serialization.get_safe_globals()) == before


def test_what_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    raw = pickle.dumps(collections.OrderedDict(), 2).replace(
        b"ccollections\nOrderedDict", b"clab_of_ours\nNet"
    )
    assert unsafe_globals(raw) == ["lab_of_ours.Net"]
    torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"ccollections\nOrderedDict", b"clab_of_ours\nNet"))
    with pytest.raises(
        WeightsError, match=r"(?s)cannot be imported.*install the package of lab_of_ours"
    ):
        read_checkpoint(path, trust=["lab_of_ours.Net"])


def test_another_name_of_something_harmful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reexports.py").write_text("from subprocess import Popen\nfrom os import system\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "a.pt"
    for name in ("Popen", "system"):
        torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
        old, new = b"ccollections\nOrderedDict", f"creexports\n{name}".encode()
        path.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(WeightsError, match=f"can do harm(?s:.*)reexports.{name}"):
            read_checkpoint(path, trust=[f"reexports.{name}"])
    sys.modules.pop("reexports", None)


@pytest.mark.parametrize("trust", [[], ["numpy.save"]])
def test_functions_of_whatever_library_are_no_data(tmp_path: Path, trust: list[str]) -> None:
    torch.save({"w": torch.ones(1), "x": torch.Size([1])}, tmp_path / "a.pt")
    raw = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(raw.replace(b"ctorch\nSize\n", b"cnumpy\nsave\n"))
    with pytest.raises(WeightsError, match=r"(?s)can do harm.*numpy\.save.*does not change this"):
        read_checkpoint(tmp_path / "a.pt", trust=trust)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "nt.system",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.exec",
        "builtins.getattr",
        "builtins.__import__",
        "builtins.open",
        "builtins.type",
        "importlib.import_module",
        "sys.exit",
        "shutil.rmtree",
        "socket.socket",
        "ctypes.CDLL",
        "runpy.run_path",
        "pickle.loads",
        "_io.FileIO",
        "functools.partial",
        "operator.attrgetter",
        "webbrowser.open",
        "numpy.memmap",
        "numpy.testing._private.utils.runstring",
        "torch.hub.load",
        "torch.storage._load_from_bytes",
        "torch.utils.cpp_extension.load",
        "pip.main",
        "eval",
        "",
    ],
)
def test_never(name: str) -> None:
    assert not may_be_trusted(name)


@pytest.mark.parametrize(
    "name",
    [
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.dtypes.Float64DType",
        "argparse.Namespace",
        "pathlib.PosixPath",
        "datetime.datetime",
        "builtins.slice",
        "omegaconf.dictconfig.DictConfig",
        "torch.nn.modules.conv.Conv3d",
        "monai.utils.enums.StrEnum",
        "lab_of_ours.Net",
    ],
)
def test_where_the_user_says_so(name: str) -> None:
    assert may_be_trusted(name)


@given(st.sampled_from(sorted({"os", "posix", "subprocess", "sys", "shutil"})), st.text())
def test_no_name_of_a_harmful_module(module: str, name: str) -> None:
    assert not may_be_trusted(f"{module}.{name}")
