"""Archives unpack into their folder, whole, or not at all."""

from __future__ import annotations

import resource
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsf_finetune.system.errors import UserError, WeightsError
from hsf_finetune.weights.files.archive import extract_safely, unpacked

Entry = tuple[str | zipfile.ZipInfo, bytes]


def _zip(path: Path, *entries: Entry, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def _of_kind(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def _everything(folder: Path) -> dict[str, bytes | None]:
    """Each path below a folder, with what is in it; None for folders."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def test_files_arrive_as_they_were(tmp_path: Path) -> None:
    archive = _zip(
        tmp_path / "a.zip",
        ("bundle/", b""),
        ("bundle/configs/metadata.json", b"{}"),
        ("bundle\\models\\model.pt", b"\x00" * 9),
        ("./bundle/empty", b""),
    )
    written = extract_safely(archive, tmp_path / "out")
    assert [p.relative_to(tmp_path / "out").as_posix() for p in written] == [
        "bundle/configs/metadata.json",
        "bundle/models/model.pt",
        "bundle/empty",
    ]
    assert written[1].read_bytes() == b"\x00" * 9
    assert all(p.is_file() for p in written)


def test_modes_are_not_restored(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", (_of_kind("run.sh", stat.S_IFREG | stat.S_ISUID), b"x"))
    (written,) = extract_safely(archive, tmp_path / "out")
    assert not written.stat().st_mode & (stat.S_ISUID | 0o111)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("../evil", "leads out"),
        ("a/../../evil", "leads out"),
        ("..\\evil", "leads out"),
        ("/etc/evil", "an absolute path"),
        ("\\\\server\\share\\evil", "an absolute path"),
        ("C:\\evil", "an absolute path"),
        ("file:stream", "not every system"),
        ("a\nb", "not every system"),
        (_of_kind("link", stat.S_IFLNK), "a symbolic link"),
        (_of_kind("pipe", stat.S_IFIFO), "neither a file nor a folder"),
        (_of_kind("disk", stat.S_IFBLK), "neither a file nor a folder"),
    ],
    ids=str,
)
def test_entries_that_lead_elsewhere(
    tmp_path: Path, entry: str | zipfile.ZipInfo, said: str
) -> None:
    folder = tmp_path / "in" / "out"
    archive = _zip(tmp_path / "a.zip", ("good", b"good"), (entry, b"/etc/passwd"))
    before = _everything(tmp_path)
    with pytest.raises(WeightsError, match=rf"(?s)could do harm.*a\.zip.*{said}.*fix:"):
        extract_safely(archive, folder)
    assert _everything(tmp_path) == before


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A"), ("a", "a/b"), ("a/b", "A")])
def test_entries_that_contradict_each_other(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.warns() if names == ("a", "a") else _nothing():
        archive = _zip(tmp_path / "a.zip", *((name, b"x") for name in names))
    with pytest.raises(WeightsError, match="twice"):
        extract_safely(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _nothing:  # noqa: N801 (a context manager)
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_too_many_and_too_large(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", *((f"{i}", b"0123456789") for i in range(20)))
    with pytest.raises(WeightsError, match=r"20 entries"):
        extract_safely(archive, tmp_path / "out", limit_files=19)
    with pytest.raises(WeightsError, match=r"200 bytes unpacked"):
        extract_safely(archive, tmp_path / "out", limit_bytes=199)
    assert len(extract_safely(archive, tmp_path / "out", 200, 20)) == 20


def test_a_bomb_is_refused_at_once(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file, file.open("0", "w") as out:
        for _ in range(65):
            out.write(bytes(1 << 20))
    began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="that unpack to"):
        extract_safely(archive, tmp_path / "out")
    assert time.monotonic() - began < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000
    assert not (tmp_path / "out").exists()


def test_an_entry_that_outgrows_its_claim(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", ("first", b"1"), ("liar", bytes(50_000)))
    raw = path.read_bytes()
    # Both headers say 10 bytes; the data unpack to 50,000.
    path.write_bytes(raw.replace(struct.pack("<I", 50_000), struct.pack("<I", 10)))
    with pytest.raises(WeightsError, match="damaged"):
        extract_safely(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _flip(raw: bytes) -> bytes:
    return raw[:40] + bytes([raw[40] ^ 255]) + raw[41:]


def _encrypt(raw: bytes) -> bytes:
    start = raw.index(b"PK\x01\x02")
    return raw[: start + 8] + b"\x01" + raw[start + 9 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_flip, "damaged"),
        (_encrypt, "encrypted"),
    ],
)
def test_damaged_archives(tmp_path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    path = _zip(tmp_path / "a.zip", ("a", bytes(range(256)) * 4), method=zipfile.ZIP_STORED)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=said) as caught:
        extract_safely(path, tmp_path / "out")
    assert "a.zip" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"PK\x03\x04" + bytes(40)])
def test_what_is_no_archive_stays_as_it_is(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.zip"
    if content is not None:
        path.write_bytes(content)
    with unpacked(path) as found:
        assert found == path


names = st.lists(
    st.text(st.sampled_from("/\\.aB: ~\x01"), max_size=7),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(names)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_ever_leaves_the_folder(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    base = tmp_path_factory.mktemp("box")
    archive = _zip(base / "a.zip", *((name, b"x") for name in names if name))
    try:
        written = extract_safely(archive, base / "out")
    except UserError:
        written = ()
        assert not (base / "out").exists()
    assert {p for p in base.rglob("*") if p.is_file()} == {archive, *written}
    assert all(p.resolve().is_relative_to((base / "out").resolve()) for p in written)
