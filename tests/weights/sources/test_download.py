"""Fetched once: cached, checked, complete or not there; offline, on a full disk, in parallel."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.urls import parse_address
from hsf_finetune.weights.sources.download import fetch_file
from tests.weights.file_server import Site
from tests.weights.sources.conftest import BODY, FETCH, SIZE, get, kept, refusal


def test_a_file_is_fetched_once_and_shows_progress(cache: Path, site: Site) -> None:
    seen: list[tuple[int, int]] = []
    first = fetch_file(
        f"{site.url}/a/model.ckpt", progress=lambda done, total: seen.append((done, total))
    )
    again = get(site)
    assert first.path.read_bytes() == BODY
    assert (first.cached, again.cached) == (False, True)
    assert (again.path, len(site.requests)) == (first.path, 1)
    assert kept(cache) == [first.path.name]
    assert first.path.name.endswith("-model.ckpt")
    assert seen == sorted(seen)
    assert seen[-1] == (SIZE, SIZE)
    assert len(seen) > 5


def test_equal_names_are_kept_apart(cache: Path, site: Site) -> None:
    site.files["/b/model.ckpt"] = b"other"
    other = fetch_file(f"{site.url}/b/model.ckpt")
    assert get(site).path != other.path
    assert other.path.read_bytes() == b"other"


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "xxh3_64"])
@pytest.mark.parametrize("named", [True, False])
def test_a_checksum_that_holds(
    cache: Path, site: Site, tmp_path: Path, algorithm: str, named: bool
) -> None:
    (tmp_path / "copy").write_bytes(BODY)
    right = Checksum.of_file(tmp_path / "copy", algorithm)
    fetched = get(site, str(right).upper() if named else right.digits)
    assert (fetched.checksum, fetched.checked) == (right, True)
    unpinned = get(site)
    assert unpinned.checksum == Checksum.of_file(tmp_path / "copy")
    assert not unpinned.checked


def test_a_checksum_that_does_not_hold_keeps_nothing(cache: Path, site: Site) -> None:
    wrong = "0" * 64
    text = refusal(site, wrong)
    (cache.parent / "copy").write_bytes(BODY)
    assert wrong in text
    assert str(Checksum.of_file(cache.parent / "copy")) in text
    assert kept(cache) == []


def test_a_file_that_someone_put_there_is_never_touched(cache: Path, site: Site) -> None:
    target = parse_address(f"{site.url}/a/model.ckpt").cache_file
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    before = target.stat()
    with pytest.raises(WeightsError, match=r"(?s)checksum.*md5:.*move the file away") as caught:
        get(site, "0" * 32)
    assert str(target) in str(caught.value)
    assert get(site).cached
    after = target.stat()
    assert target.read_bytes() == b"mine"
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert site.requests == []


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"\x80\x02 whatever", "text/html; charset=utf-8", "a web page"),
        (b"\n <!DOCTYPE html><html>sign in</html>", "application/octet-stream", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text/plain", "Git LFS pointer"),
        (b"", "application/octet-stream", "an empty file"),
    ],
)
def test_what_is_no_checkpoint(
    cache: Path, site: Site, body: bytes, content_type: str, said: str
) -> None:
    site.files["/a/model.ckpt"], site.content_type = body, content_type
    assert said in refusal(site)
    assert kept(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a Unix feature")
def test_a_full_disk(cache: Path, site: Site) -> None:
    # Python ignores SIGXFSZ, so that a file beyond the limit fails like one on a full disk.
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)\n{FETCH}"
    command = [sys.executable, "-c", limited, f"{site.url}/a/model.ckpt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "WeightsError: the file could not be kept" in done.stderr
    assert "HSF_FINETUNE_CACHE" in done.stderr
    assert not list(cache.glob("*.ckpt"))
    assert get(site).path.read_bytes() == BODY


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_folder_that_may_not_be_written_to(cache: Path, site: Site) -> None:
    cache.parent.mkdir()
    cache.parent.chmod(0o500)
    assert "make that folder writable" in refusal(site)


def test_a_file_where_the_cache_should_be(cache: Path, site: Site) -> None:
    cache.parent.write_text("in the way")
    assert "HSF_FINETUNE_CACHE" in refusal(site)


# ---------------------------------------------------------------------- offline
@pytest.mark.parametrize("by", ["setting", "environment"])
def test_offline(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    if by == "environment":
        monkeypatch.setenv("HSF_FINETUNE_OFFLINE", "1")
    url = f"{site.url}/a/model.ckpt"
    target = parse_address(url).cache_file
    with pytest.raises(WeightsError, match="offline") as caught:
        fetch_file(url, offline=by == "setting")
    assert url in str(caught.value)
    assert str(target) in str(caught.value)
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY)
    assert fetch_file(url, offline=by == "setting").path == target
    assert site.requests == []


# -------------------------------------------------------------------- in parallel
def test_processes_that_want_the_same_file_fetch_it_once(cache: Path, site: Site) -> None:
    site.pause = threading.Event()
    command = [sys.executable, "-c", FETCH, f"{site.url}/a/model.ckpt"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    time.sleep(1.5)
    site.pause.set()
    results = [process.communicate(timeout=30) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    (path,) = {out.strip() for out, _ in results}
    assert Path(path).read_bytes() == BODY
    assert len(site.requests) == 1
    assert kept(cache) == [Path(path).name]


def test_a_call_that_waits_shows_the_progress_of_the_other(cache: Path, site: Site) -> None:
    site.pause = threading.Event()
    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        seen.append((done, total))
        site.pause.set()  # type: ignore[union-attr]

    with ThreadPoolExecutor() as pool:
        first = pool.submit(get, site)
        while not list(cache.glob("*.part.json")):
            time.sleep(0.01)
        second = pool.submit(fetch_file, f"{site.url}/a/model.ckpt", progress=watch)
        assert first.result().path == second.result().path
    assert seen
    assert all(total == SIZE for _, total in seen)
    assert second.result().cached
    assert len(site.requests) == 1
