"""Files are written whole or not at all, and failures name file, reason and fix."""

import csv
import gzip
import io
import json
import math
import os
import stat
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.system.atomic_files import atomic_write, read_csv, write_csv, write_json
from hsf_finetune.system.errors import DataError, OutputError

LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from hsf_finetune.system.errors import OutputError
from hsf_finetune.system.atomic_files import atomic_write, write_csv

def npy(path):
    with atomic_write(path) as temp:
        np.save(temp, np.random.default_rng(0).random(9_000))

def table(path):
    write_csv(path, ["number"], [[i] for i in range(9_000)])

def nifti(path):
    import nibabel
    make: Any = nibabel.Nifti1Image
    image = make(np.random.default_rng(0).random((20, 20, 20)), np.eye(4))
    with atomic_write(path) as temp:
        nibabel.save(image, temp)

def hdf5(path):
    import h5py
    with atomic_write(path) as temp, h5py.File(temp, "w") as file:
        file["x"] = np.random.default_rng(0).random(9_000)

def torch_path(path):
    import torch
    with atomic_write(path) as temp:
        torch.save({"x": torch.rand(9_000)}, temp)

def torch_handle(path):
    import torch
    with atomic_write(path) as temp, temp.open("wb") as file:
        torch.save({"x": torch.rand(9_000)}, file)

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for target in map(Path, sys.argv[1:]):
    try:
        globals()[target.name.split(".")[0]](target)
    except OutputError as error:
        print(error, end="\\0")
"""


def test_a_full_disk_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="file size limits are a Unix feature")
    names = ["table.csv", "npy.npy", "nifti.nii.gz", "hdf5.h5", "torch_path.pt", "torch_handle.pt"]
    targets = [tmp_path / name for name in names]
    for target in targets:
        target.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, targets)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for target, message in zip(targets, done.stdout.split("\0")[:-1], strict=True):
        assert message.startswith("cannot write the result\n")
        assert f"file:     {target}" in message
        assert "fix:      " in message
        # NumPy and PyTorch's own writer keep the system's reason to themselves.
        if target.stem not in ("npy", "torch_path"):
            assert "found:    File too large" in message
        assert target.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == sorted(targets)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full of Linux")
def test_the_message_of_a_full_disk(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "x.csv"
    with (
        pytest.raises(OutputError) as caught,
        atomic_write(target),
        Path("/dev/full").open("w") as file,
    ):
        file.write("x" * 10)
    text = str(caught.value)
    assert str(target) in text
    assert "No space left on device" in text
    assert "free some space" in text
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("name", ["a.nii.gz", "sub-01_space-0.4mm.nii.gz", "a.ckpt", "a"])
def test_the_temporary_file_keeps_suffix_and_folder(tmp_path: Path, name: str) -> None:
    target = tmp_path / "new" / "folder" / name
    with atomic_write(target) as temp:
        assert temp.parent == target.parent
        assert "".join(temp.suffixes).endswith("".join(Path(name).suffixes[-2:]))
        temp.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_the_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 248 + ".nii.gz")
    with atomic_write(target) as temp:
        temp.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_others_may_read_the_file_as_the_umask_says(tmp_path: Path) -> None:
    plain, target = tmp_path / "plain", tmp_path / "target"
    plain.touch()
    with atomic_write(target) as temp:
        temp.touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def write_half(target: Path, error: BaseException) -> None:
    with atomic_write(target) as temp:
        temp.write_text("half")
        raise error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("no"), DataError("no"), RuntimeError("no")]
)
def test_other_exceptions_pass_and_leave_nothing(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old")
    with pytest.raises(type(error)) as caught:
        write_half(target, error)
    assert caught.value is error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupt_within_the_writer_of_pytorch_is_no_full_disk(tmp_path: Path) -> None:
    class Interrupted(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() > 1000:
                raise KeyboardInterrupt
            return super().write(content)

    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.ckpt"):
        torch.save(torch.zeros(9999), Interrupted())


def test_a_missing_input_is_not_taken_for_a_failed_write(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"input\.nii"),
        atomic_write(tmp_path / "out" / "a.csv"),
    ):
        (tmp_path / "input.nii").read_bytes()


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"(?s)a\.csv.*Not a directory|File exists"),
        atomic_write(tmp_path / "file" / "a.csv") as temp,
    ):
        temp.touch()


def test_a_folder_of_that_name_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a folder"), atomic_write(tmp_path):
        pytest.fail("the work was done in vain")


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(OutputError, match="a device"), atomic_write(os.devnull):
        pytest.fail("the work was done in vain")


@dataclass(frozen=True)
class Point:
    """A value to be written as JSON."""

    x: float
    path: Path


def test_json_holds_plain_types_and_null_for_nan(tmp_path: Path) -> None:
    obj = {
        "nan": math.nan,
        "inf": [np.float32("inf")],
        "point": Point(1.5, Path("a")),
        1: (np.int64(2), {"b", "a"}),
        "array": np.array([[1.0, np.nan]]),
        "text": "CA2/3 \u00e9",
    }
    write_json(tmp_path / "a.json", obj)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "nan": None,
        "inf": [None],
        "point": {"x": 1.5, "path": "a"},
        "1": [2, ["a", "b"]],
        "array": [[1.0, None]],
        "text": "CA2/3 \u00e9",
    }


def test_json_takes_items_one_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[Point]] = []

    def points() -> Iterator[Point]:
        for x in range(5):
            assert sum(one() is not None for one in alive) <= 2
            point = Point(x, tmp_path)
            alive.append(weakref.ref(point))
            yield point

    write_json(tmp_path / "a.json", {"points": points(), "none": iter(()), "empty": []})
    found = json.loads((tmp_path / "a.json").read_text())
    assert [point["x"] for point in found.pop("points")] == [0, 1, 2, 3, 4]
    assert found == {"none": [], "empty": []}


@pytest.mark.parametrize("object_", [{"a": object()}, [object()], iter([1, object()])])
def test_json_refuses_what_it_cannot_express(tmp_path: Path, object_: object) -> None:
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "a.json", object_)
    assert not list(tmp_path.iterdir())


@given(
    rows=st.lists(
        st.tuples(
            # Surrogates stand for undecodable bytes of a path; other ones are no text.
            st.text(st.characters(codec="utf-8", exclude_characters="\r\0") | st.just("\udcff")),
            st.floats(),
            st.integers(),
        )
    )
)
def test_csv_comes_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, int]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(path, ["text", "float", "int"], rows)
    header, *lines = read_csv(path)
    assert header == ["text", "float", "int"]
    assert [
        (text, float(number) if number else None, int(whole)) for text, number, whole in lines
    ] == [(text, None if math.isnan(number) else number, whole) for text, number, whole in rows]


def test_a_row_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 cells in a table of 2"):
        write_csv(tmp_path / "a.csv", ["a", "b"], [[1]])
    assert not list(tmp_path.iterdir())


def test_a_file_name_that_is_no_utf8_can_be_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.nii")
    write_csv(tmp_path / "a.csv", ["file"], [[name]])
    write_json(tmp_path / "a.json", {"file": name})
    assert b"caf\xe9.nii" in (tmp_path / "a.csv").read_bytes()
    assert b"caf\xe9.nii" in (tmp_path / "a.json").read_bytes()


def test_gzip_is_recognised_by_the_temporary_name(tmp_path: Path) -> None:
    import nibabel

    make: Any = nibabel.Nifti1Image
    image = make(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    with atomic_write(tmp_path / "a.nii.gz") as temp:
        nibabel.save(image, temp)
    assert len(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())) == 352 + 64


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "'=x"])
def test_text_is_no_formula_of_a_spreadsheet_and_is_read_back(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "a.csv", ["=name", "value"], [[text, -1.5], [Path(text), -2]])
    rows = list(csv.reader((tmp_path / "a.csv").open()))
    assert rows == [["'=name", "value"], [f"'{text}", "-1.5"], [f"'{text}", "-2"]]
    assert read_csv(tmp_path / "a.csv") == [["=name", "value"], [text, "-1.5"], [text, "-2"]]


@pytest.mark.parametrize("text", ["-1", "+2.5e-3", "-", "sub-01", "'quoted'", "", "a=b"])
def test_numbers_and_other_text_stay_as_they_are(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "a.csv", ["text"], [[text]])
    assert list(csv.reader((tmp_path / "a.csv").open())) == [["text"], [text]]
    assert read_csv(tmp_path / "a.csv")[1] == [text]
