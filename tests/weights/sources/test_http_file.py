"""Downloads over a real server on this machine: cut, resumed, refused, redirected, from the Hub."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.urls import parse_address
from hsf_finetune.weights.sources import http_file
from hsf_finetune.weights.sources.download import fetch_file
from tests.weights.file_server import Site, serving
from tests.weights.sources.conftest import ATTEMPTS, BODY, FETCH, SIZE, get, kept, refusal


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


def test_a_cut_is_resumed_by_a_later_call(cache: Path, site: Site, once: None) -> None:
    site.cuts = [200_000]
    text = refusal(site)
    (part,) = cache.glob("*.part")
    have = part.stat().st_size
    assert f"{have:,} bytes have arrived" in text
    assert part.read_bytes() == BODY[:have]
    done: list[int] = []
    fetched = fetch_file(f"{site.url}/a/model.ckpt", progress=lambda now, total: done.append(now))
    assert fetched.path.read_bytes() == BODY
    assert done[0] == have > 0, "the bar continues where it was"
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
    once: None,
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
            path = get(site).path
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
def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, knows_if_range: bool, size: int
) -> None:
    site.cuts = [300_000]
    with monkeypatch.context() as patch:
        patch.setattr(http_file, "_ATTEMPTS", 1)
        refusal(site)
    site.files["/a/model.ckpt"] = BODY[:size][::-1]
    site.knows_if_range = knows_if_range
    assert get(site).path.read_bytes() == BODY[:size][::-1]


@pytest.mark.parametrize("shift", [-1000, 1000])
def test_a_range_that_begins_elsewhere_is_not_taken(cache: Path, site: Site, shift: int) -> None:
    site.cuts, site.shift = [300_000], shift
    assert get(site).path.read_bytes() == BODY
    assert [request.status for request in site.requests] == [200, 206, 200]


def test_a_part_from_one_mirror_is_not_resumed_from_another(
    cache: Path, site: Site, once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.headers["ETag"], site.cuts = '"1"', [300_000]
    for mirror, body in (("a", BODY), ("b", BODY[::-1])):
        site.files[f"/{mirror}/lab/nets/resolve/main/m.ckpt"] = body
    site.has_validators = site.knows_if_range = False
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/a")
    with pytest.raises(WeightsError):
        fetch_file("hf://lab/nets/m.ckpt")
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/b")
    assert fetch_file("hf://lab/nets/m.ckpt").path.read_bytes() == BODY[::-1]


def test_a_part_that_was_complete_is_not_fetched_again(cache: Path, site: Site, once: None) -> None:
    site.cuts = [300_000]
    refusal(site)
    (part,) = cache.glob("*.part")
    part.write_bytes(BODY)
    fetched = get(site)
    assert fetched.path.read_bytes() == BODY
    assert len(site.requests) == 1
    assert kept(cache) == [fetched.path.name]


def test_a_part_of_unknown_origin_is_not_trusted(cache: Path, site: Site) -> None:
    target = parse_address(f"{site.url}/a/model.ckpt").cache_file
    target.parent.mkdir(parents=True)
    target.with_name(f"{target.name}.part").write_bytes(b"x" * 1000)
    assert get(site).path.read_bytes() == BODY
    assert site.ranges == [None]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a Unix feature")
def test_a_process_that_is_killed_leaves_what_the_next_one_resumes(cache: Path, site: Site) -> None:
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
    ("status", "expected"),
    [(404, "check the address"), (403, "netrc"), (401, "netrc"), (410, "410"), (400, "browser")],
)
def test_answers_that_another_attempt_would_not_change(
    cache: Path, site: Site, status: int, expected: str
) -> None:
    site.statuses = [status] * 9
    text = refusal(site)
    assert f"HTTP status {status} (" in text
    assert expected in text
    assert str(parse_address(f"{site.url}/a/model.ckpt").cache_file) in text
    assert len(site.requests) == 1
    assert kept(cache) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(cache: Path, site: Site, status: int) -> None:
    site.statuses = [status] * 2
    assert get(site).path.read_bytes() == BODY
    shutil.rmtree(cache)
    site.statuses = [status] * 9
    assert f"HTTP status {status}" in refusal(site)
    assert len(site.requests) == 3 + ATTEMPTS


def test_the_wait_that_a_server_asks_for(cache: Path, site: Site) -> None:
    site.statuses, site.headers = [503], {"Retry-After": "1"}
    began = time.monotonic()
    get(site)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("status", [206, 416])
def test_a_part_that_nobody_asked_for(cache: Path, site: Site, status: int) -> None:
    site.statuses = [status]
    assert f"HTTP status {status} (" in refusal(site)
    assert kept(cache) == []


def test_a_server_that_does_not_exist(cache: Path) -> None:
    with serving() as site:
        pass
    assert "refused" in refusal(site).lower()


def test_a_server_that_stops_sending(
    cache: Path, site: Site, once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pause = threading.Event()
    monkeypatch.setattr(http_file, "_TIMEOUTS_S", (5, 0.3))
    assert "timed out" in refusal(site).lower()
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


# -------------------------------------------------------------------- redirects
def test_redirects_are_followed_unless_they_are_insecure(cache: Path, site: Site) -> None:
    site.redirects["/latest"] = "/a/model.ckpt"
    assert fetch_file(f"{site.url}/latest").path.read_bytes() == BODY
    site.redirects["/trap"] = "http://example.org/model.ckpt"
    with pytest.raises(WeightsError, match=r"(?s)redirect.*http://example\.org"):
        fetch_file(f"{site.url}/trap")
    site.redirects["/loop"] = "/loop"
    with pytest.raises(WeightsError, match="redirects"):
        fetch_file(f"{site.url}/loop")


# -------------------------------------------------------------- Hugging Face Hub
@pytest.fixture
def hub(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The Hub on this machine; as the real one, it sends files from another host."""
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/")
    for path in ("resolve/main/ckpt/a%20b.ckpt", "resolve/refs%2Fpr%2F1/ckpt/a%20b.ckpt"):
        content = site.url.replace("127.0.0.1", "localhost")
        site.redirects[f"/lab/nets/{path}"] = f"{content}/a/model.ckpt"
    return site


def run_fetch(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Fetches in another process: huggingface_hub reads its variables when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", FETCH, source],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_hub(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fetch_file("hf://lab/nets/ckpt/a b.ckpt")
    assert plain.path.read_bytes() == BODY
    assert plain.path.name.endswith("-a_b.ckpt")
    other = fetch_file("hf://lab/nets/ckpt/a b.ckpt@refs/pr/1")
    assert other.path != plain.path
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch_file("hf://lab/nets/ckpt/a b.ckpt").path == plain.path, "from any mirror"


def test_the_token_stays_with_the_hub(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    fetch_file("hf://lab/nets/ckpt/a b.ckpt")
    assert [r.headers.get("Authorization") for r in hub.requests] == ["Bearer secret", None]
    get(hub)
    assert "Authorization" not in hub.requests[-1].headers


def test_the_token_that_hf_auth_login_saves(hub: Site, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("saved")
    done = run_fetch("hf://lab/nets/ckpt/a b.ckpt", HF_TOKEN_PATH=str(tmp_path / "token"))
    assert Path(done.stdout.strip()).read_bytes() == BODY, done.stderr
    assert hub.requests[0].headers["Authorization"] == "Bearer saved"


def test_a_cut_from_the_hub_is_resumed_by_a_later_call(hub: Site, once: None) -> None:
    hub.cuts = [200_000]
    with pytest.raises(WeightsError, match="bytes have arrived and are kept"):
        fetch_file("hf://lab/nets/ckpt/a b.ckpt")
    assert fetch_file("hf://lab/nets/ckpt/a b.ckpt").path.read_bytes() == BODY
    assert [request.status for request in hub.requests] == [302, 200, 302, 206]


@pytest.mark.parametrize(
    ("status", "message", "fix"),
    [
        (401, "Access to model lab/nets is restricted.", "hf auth login"),
        (403, "You are not in the authorized list.", "HF_TOKEN"),
        (404, "Entry not found", "check the address"),
    ],
)
def test_the_hub_says_why_it_refuses(hub: Site, status: int, message: str, fix: str) -> None:
    hub.statuses, hub.headers = [status], {"X-Error-Message": message}
    with pytest.raises(WeightsError, match=rf"(?s)hf://lab/nets/no\.ckpt.*{status}") as caught:
        fetch_file("hf://lab/nets/no.ckpt")
    assert message in str(caught.value)
    assert fix in str(caught.value)


def test_hf_hub_offline_is_for_the_hub_alone(hub: Site) -> None:
    done = run_fetch("hf://lab/nets/ckpt/a b.ckpt", HF_HUB_OFFLINE="1")
    assert "offline" in done.stderr
    assert hub.requests == []
    other = run_fetch(f"{hub.url}/a/model.ckpt", HF_HUB_OFFLINE="1")
    assert Path(other.stdout.strip()).read_bytes() == BODY, other.stderr
    cached = fetch_file("hf://lab/nets/ckpt/a b.ckpt").path
    again = run_fetch("hf://lab/nets/ckpt/a b.ckpt", HF_HUB_OFFLINE="1")
    assert again.stdout.strip() == str(cached)
