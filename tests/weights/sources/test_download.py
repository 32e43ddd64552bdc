"""Fetching over a real server on this machine: cut, resumed, refused, offline, at once."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.urls import address_of
from hsf_finetune.weights.sources.download import Fetched, fetch
from hsf_finetune.weights.sources.http_file import Patience
from tests.weights.file_server import Site, serving

SIZE = 600_000
BODY = random.Random(0).randbytes(SIZE)
QUICK = Patience(attempts=3, pause_s=0.01, connect_s=5, silence_s=5)
ONCE = Patience(attempts=1, pause_s=0.01, connect_s=5, silence_s=5)
FETCH = (
    "import sys; from hsf_finetune.weights.download import fetch; print(fetch(sys.argv[1]).path)"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads, which does not exist yet."""
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HSF_FINETUNE_OFFLINE", raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files["/a/model.ckpt"] = BODY
        yield site


def get(site: Site, checksum: str | None = None, patience: Patience = QUICK) -> Fetched:
    return fetch(f"{site.url}/a/model.ckpt", checksum, patience=patience)


def refusal(site: Site, checksum: str | None = None, patience: Patience = QUICK) -> str:
    with pytest.raises(WeightsError) as caught:
        get(site, checksum, patience)
    assert site.url in str(caught.value)
    assert "fix:" in str(caught.value)
    return str(caught.value)


def kept(cache: Path) -> list[str]:
    """What lies in the cache but locks."""
    return sorted(p.name for p in cache.iterdir() if p.suffix != ".lock")


def test_it_is_fetched_once_and_shows_how_far_it_is(cache: Path, site: Site) -> None:
    seen: list[tuple[int, int]] = []
    first = fetch(
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
    other = fetch(f"{site.url}/b/model.ckpt")
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
    target = address_of(f"{site.url}/a/model.ckpt").cache_file
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


# ---------------------------------------------------------------------- cut off
def test_a_cut_is_resumed_in_the_same_call(cache: Path, site: Site) -> None:
    site.cuts = [200_000, 250_000]
    assert get(site).path.read_bytes() == BODY
    starts = [0, *(int(r.removeprefix("bytes=")[:-1]) for r in site.ranges[1:] if r)]
    assert len(starts) == 3
    assert [request.status for request in site.requests] == [200, 206, 206]
    # Of a piece that was cut, at most one block that had not been written is sent again.
    assert 0 <= 200_000 - starts[1] < 1 << 16
    assert 0 <= starts[1] + 250_000 - starts[2] < 1 << 16
    assert site.requests[-1].sent == SIZE - starts[2]


def test_a_cut_is_resumed_by_a_later_call(cache: Path, site: Site) -> None:
    site.cuts = [200_000]
    text = refusal(site, patience=ONCE)
    (part,) = cache.glob("*.part")
    have = part.stat().st_size
    assert f"{have:,} bytes have arrived" in text
    assert part.read_bytes() == BODY[:have]
    done: list[int] = []
    fetched = fetch(f"{site.url}/a/model.ckpt", progress=lambda now, total: done.append(now))
    assert fetched.path.read_bytes() == BODY
    assert done[0] == have > 0, "the bar goes on where it was"
    assert site.ranges == [None, f"bytes={have}-"]
    assert site.requests[1].headers["If-Range"] == f'"{hashlib.md5(BODY).hexdigest()}"'
    assert have + site.requests[1].sent == SIZE
    assert kept(cache) == [fetched.path.name]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cuts=st.lists(st.integers(0, SIZE), max_size=4),
    ranges=st.booleans(),
    conditions=st.booleans(),
    validators=st.booleans(),
    changes=st.booleans(),
)
def test_whatever_happens_the_file_is_whole_and_of_one_version(
    cache: Path,
    site: Site,
    cuts: list[int],
    ranges: bool,
    conditions: bool,
    validators: bool,
    changes: bool,
) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    site.files["/a/model.ckpt"], site.cuts = BODY, list(cuts)
    site.knows_ranges, site.knows_if_range = ranges, conditions
    site.has_validators = validators
    for _ in range(6):
        try:
            path = get(site, patience=ONCE).path
            break
        except WeightsError:
            if changes:
                site.files["/a/model.ckpt"] = BODY[::-1]
    assert path.read_bytes() == site.files["/a/model.ckpt"]


@pytest.mark.parametrize("flaw", ["knows_ranges", "has_validators"])
def test_without_ranges_it_starts_again(cache: Path, site: Site, flaw: str) -> None:
    setattr(site, flaw, False)
    site.cuts = [300_000]
    assert get(site).path.read_bytes() == BODY
    assert [request.status for request in site.requests] == [200, 200]


@pytest.mark.parametrize("knows_if_range", [True, False])
@pytest.mark.parametrize("size", [SIZE, SIZE // 2, 1000])
def test_a_file_that_changed_in_between_is_fetched_anew(
    cache: Path, site: Site, knows_if_range: bool, size: int
) -> None:
    site.cuts = [300_000]
    refusal(site, patience=ONCE)
    site.files["/a/model.ckpt"] = BODY[:size][::-1]
    site.knows_if_range = knows_if_range
    assert get(site).path.read_bytes() == BODY[:size][::-1]


@pytest.mark.parametrize("shift", [-1000, 1000])
def test_a_range_that_begins_elsewhere_is_not_taken(cache: Path, site: Site, shift: int) -> None:
    site.cuts, site.shift = [300_000], shift
    assert get(site).path.read_bytes() == BODY
    assert [request.status for request in site.requests] == [200, 206, 200]


def test_a_part_from_one_mirror_is_not_gone_on_with_from_another(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.headers["ETag"], site.cuts = '"1"', [300_000]
    for mirror, body in (("a", BODY), ("b", BODY[::-1])):
        site.files[f"/{mirror}/lab/nets/resolve/main/m.ckpt"] = body
    site.has_validators = site.knows_if_range = False
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/a")
    with pytest.raises(WeightsError):
        fetch("hf://lab/nets/m.ckpt", patience=ONCE)
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/b")
    assert fetch("hf://lab/nets/m.ckpt").path.read_bytes() == BODY[::-1]


def test_a_part_that_was_complete_is_not_fetched_again(cache: Path, site: Site) -> None:
    site.cuts = [300_000]
    refusal(site, patience=ONCE)
    (part,) = cache.glob("*.part")
    part.write_bytes(BODY)
    sent = site.sent
    assert get(site).path.read_bytes() == BODY
    assert site.sent == sent


def test_a_part_of_unknown_origin_is_not_trusted(cache: Path, site: Site) -> None:
    target = address_of(f"{site.url}/a/model.ckpt").cache_file
    target.parent.mkdir(parents=True)
    target.with_name(f"{target.name}.part").write_bytes(b"x" * 1000)
    assert get(site).path.read_bytes() == BODY
    assert site.ranges == [None]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a Unix feature")
def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_with(
    cache: Path, site: Site
) -> None:
    site.pause = threading.Event()
    process = subprocess.Popen([sys.executable, "-c", FETCH, f"{site.url}/a/model.ckpt"])
    for _ in range(500):
        parts = list(cache.glob("*.part")) if cache.exists() else []
        if parts and parts[0].stat().st_size > 100_000:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    site.pause.set()
    assert not list(cache.glob("*.ckpt"))
    site.pause = None
    assert get(site).path.read_bytes() == BODY
    assert site.requests[-1].status == 206


# ---------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "check the address"), (403, "netrc"), (401, "netrc"), (410, "410"), (400, "browser")],
)
def test_answers_that_another_attempt_would_not_change(
    cache: Path, site: Site, status: int, said: str
) -> None:
    site.statuses = [status] * 9
    text = refusal(site)
    assert f"HTTP status {status} (" in text
    assert said in text
    assert str(address_of(f"{site.url}/a/model.ckpt").cache_file) in text
    assert len(site.requests) == 1
    assert kept(cache) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(cache: Path, site: Site, status: int) -> None:
    site.statuses = [status] * 2
    assert get(site).path.read_bytes() == BODY
    shutil.rmtree(cache)
    site.statuses = [status] * 9
    assert f"HTTP status {status}" in refusal(site)
    assert len(site.requests) == 3 + QUICK.attempts


def test_the_wait_that_a_server_asks_for(cache: Path, site: Site) -> None:
    site.statuses, site.headers = [503], {"Retry-After": "1"}
    began = time.monotonic()
    get(site)
    assert time.monotonic() - began >= 1


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


def test_nobody_is_there(cache: Path) -> None:
    with serving() as site:
        pass
    assert "refused" in refusal(site).lower()


def test_a_server_that_falls_silent(cache: Path, site: Site) -> None:
    site.pause = threading.Event()
    patience = Patience(attempts=1, silence_s=0.3)
    assert "timed out" in refusal(site, patience=patience).lower()
    site.pause.set()


def test_a_certificate_that_nobody_signed(cache: Path, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    also = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make.split(), *files, *also], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving(context) as site, pytest.MonkeyPatch.context() as patch:
        site.files["/a/model.ckpt"] = BODY
        text = refusal(site)
        assert "CERTIFICATE_VERIFY_FAILED" in text
        assert "REQUESTS_CA_BUNDLE" in text
        patch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
        assert get(site).path.read_bytes() == BODY


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
    target = address_of(url).cache_file
    with pytest.raises(WeightsError, match="offline") as caught:
        fetch(url, offline=by == "setting")
    assert url in str(caught.value)
    assert str(target) in str(caught.value)
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY)
    assert fetch(url, offline=by == "setting").path == target
    assert site.requests == []


# ---------------------------------------------------------------------- at once
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


def test_one_that_waits_shows_how_far_the_other_is(cache: Path, site: Site) -> None:
    site.pause = threading.Event()
    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        seen.append((done, total))
        site.pause.set()  # type: ignore[union-attr]

    with ThreadPoolExecutor() as pool:
        first = pool.submit(get, site)
        while not list(cache.glob("*.part.json")):
            time.sleep(0.01)
        second = pool.submit(fetch, f"{site.url}/a/model.ckpt", progress=watch)
        assert first.result().path == second.result().path
    assert seen
    assert all(total == SIZE for _, total in seen)
    assert second.result().cached
    assert len(site.requests) == 1


# -------------------------------------------------------------------- redirects
def test_redirects_are_followed_unless_they_lead_off_the_safe_path(cache: Path, site: Site) -> None:
    site.redirects["/latest"] = "/a/model.ckpt"
    assert fetch(f"{site.url}/latest").path.read_bytes() == BODY
    site.redirects["/trap"] = "http://example.org/model.ckpt"
    with pytest.raises(WeightsError, match=r"(?s)redirect.*http://example\.org"):
        fetch(f"{site.url}/trap", patience=QUICK)
    site.redirects["/loop"] = "/loop"
    with pytest.raises(WeightsError, match="redirects"):
        fetch(f"{site.url}/loop", patience=QUICK)


def test_the_hub_through_a_mirror(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    site.redirects["/lab/nets/resolve/main/ckpt/a%20b.ckpt"] = "/a/model.ckpt"
    site.redirects["/lab/nets/resolve/refs%2Fpr%2F1/ckpt/a%20b.ckpt"] = "/a/model.ckpt"
    plain = fetch("hf://lab/nets/ckpt/a b.ckpt")
    assert plain.path.read_bytes() == BODY
    assert plain.path.name.endswith("-a_b.ckpt")
    assert site.requests[0].headers["Authorization"] == "Bearer secret"
    other = fetch("hf://lab/nets/ckpt/a b.ckpt@refs/pr/1")
    assert other.path != plain.path
    site.statuses = [401]
    with pytest.raises(WeightsError, match=r"(?s)hf://lab/nets/no\.ckpt.*401.*HF_TOKEN"):
        fetch("hf://lab/nets/no.ckpt")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch("hf://lab/nets/ckpt/a b.ckpt").path == plain.path, "whichever the mirror"
