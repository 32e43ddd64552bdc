"""Addresses of weights: what is fetched from where, and what is refused."""

from __future__ import annotations

import pytest

from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.urls import parse_address


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("https://a.org/x/m.ckpt?download=1#top", "https://a.org/x/m.ckpt?download=1"),
        ("http://localhost:80/m.ckpt", "http://localhost:80/m.ckpt"),
        ("http://[::1]/m.ckpt", "http://[::1]/m.ckpt"),
        ("hf://lab/net/m.ckpt", "https://huggingface.co/lab/net/resolve/main/m.ckpt"),
        ("hf://lab/net/a/m.ckpt@v1", "https://huggingface.co/lab/net/resolve/v1/a/m.ckpt"),
        ("hf://lab/net@v1/a/m.ckpt", "https://huggingface.co/lab/net/resolve/v1/a/m.ckpt"),
        ("hf://lab/net/m.ckpt@a/b", "https://huggingface.co/lab/net/resolve/a%2Fb/m.ckpt"),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, source: str, url: str) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert parse_address(source).url == url


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("http://a.org/m.ckpt", "fix: +https://a.org/m.ckpt"),
        ("http://127.0.0.1.evil.org/m.ckpt", "over http"),
        ("ftp://a.org/m.ckpt", "cannot be fetched"),
        ("file:///m.ckpt", "a path without ://"),
        ("https:///m.ckpt", "cannot be fetched"),
        ("https://a.org", "cannot be fetched"),
        ("https://a.org:port/m.ckpt", "not a URL"),
        ("hf://lab/net", "hf://OWNER/REPO"),
        ("hf://lab/net/folder/", "hf://OWNER/REPO"),
        ("hf://lab/net@v1/m.ckpt@v2", "hf://OWNER/REPO"),
    ],
)
def test_addresses_that_are_refused(source: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_address(source)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="netrc") as caught:
        parse_address("https://me:topsecret@a.org/m.ckpt")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("path", ["/%2e%2e/%2e%2e%2fpasswd", "/.hidden", "/" + "x" * 300, "/a%00b"])
def test_no_address_leads_out_of_the_cache(path: str) -> None:
    file = parse_address(f"https://a.org{path}").cache_file
    assert file.parent.name == "weights"
    assert file.name == file.name.strip("./")
    assert len(file.name) < 120
    assert "\0" not in file.name
