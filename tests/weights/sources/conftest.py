"""A server of weights on this machine, and an empty cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources import http_file
from hsf_finetune.weights.sources.download import FetchedFile, fetch_file
from tests.weights.file_server import Site, serving

SIZE = 600_000
BODY = random.Random(0).randbytes(SIZE)
ATTEMPTS = 3
FETCH = (
    "import sys; from hsf_finetune.weights.sources.download import fetch_file; "
    "print(fetch_file(sys.argv[1]).path)"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads, which does not exist yet; failed attempts are quick."""
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path / "cache"))
    for name in ("HSF_FINETUNE_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http_file, "_ATTEMPTS", ATTEMPTS)
    monkeypatch.setattr(http_file, "_PAUSE_S", 0.01)
    monkeypatch.setattr(http_file, "_TIMEOUTS_S", (5, 5))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second attempt."""
    monkeypatch.setattr(http_file, "_ATTEMPTS", 1)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files["/a/model.ckpt"] = BODY
        yield site


def get(site: Site, checksum: str | None = None) -> FetchedFile:
    return fetch_file(f"{site.url}/a/model.ckpt", checksum)


def refusal(site: Site, checksum: str | None = None) -> str:
    with pytest.raises(WeightsError) as caught:
        get(site, checksum)
    assert site.url in str(caught.value)
    assert "fix:" in str(caught.value)
    return str(caught.value)


def kept(cache: Path) -> list[str]:
    """What lies in the cache but locks."""
    return sorted(p.name for p in cache.iterdir() if p.suffix != ".lock")
