"""Addresses of weights on the network: https and the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from hsf_finetune.system.atomic_files import cache_folder
from hsf_finetune.system.errors import ConfigError

_HUB = "https://huggingface.co"
_MAX_NAME_LENGTH = 100


@dataclass(frozen=True)
class Address:
    """A file on the network.

    Args:
        source: the address as the user wrote it: an https URL or
            `hf://OWNER/REPO/FILE[@REVISION]`.
        url: where the file is fetched from.
        hub: whether that is the Hugging Face Hub or a mirror of it.
    """

    source: str
    url: str
    hub: bool

    @property
    def cache_file(self) -> Path:
        """Where the file is kept; a digest of the source keeps equal names apart."""
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:12]
        name = unquote(urlsplit(self.url).path).rpartition("/")[2]
        plain = re.sub(r"[^\w.+-]", "_", name)[-_MAX_NAME_LENGTH:].lstrip(".") or "weights"
        return cache_folder() / "weights" / f"{digest}-{plain}"


def is_remote(text: str) -> bool:
    """Whether a text is an address rather than a path."""
    return "://" in text


def parse_address(source: str) -> Address:
    """The address that an https URL or an `hf://` text stands for.

    `hf://OWNER/REPO/PATH/IN/REPO@REVISION` (the default revision is main; the form
    `hf://OWNER/REPO@REVISION/PATH` means the same) is fetched from
    `huggingface.co/OWNER/REPO/resolve/REVISION/PATH`. As for huggingface_hub, the
    environment variable HF_ENDPOINT names a mirror.

    Raises:
        ConfigError: another scheme, an incomplete address, or a password in it.
    """
    if source.startswith("hf://"):
        address = Address(source, _hub_url(source), hub=True)
    else:
        address = Address(source, source.partition("#")[0], hub=False)
    check_url(address.url)
    return address


def check_url(url: str) -> None:
    """Refuses URLs whose content can be changed on the way, and URLs with a password.

    Raises:
        ConfigError: the scheme is not https (http is allowed for this machine), there
            is no host or no file, or the URL holds a user name.
    """
    try:
        parts = urlsplit(url)
        host, user = parts.hostname or "", parts.username
        _ = parts.port
    except ValueError as error:
        raise ConfigError("this is not a URL", file=url, found=str(error)) from error
    if user is not None:
        raise ConfigError(
            "a URL with a user name or password would be saved with every run",
            file=f"{parts.scheme}://...@{host}{parts.path}",
            fix="leave it out, and put it into ~/.netrc: machine HOST login NAME password WORD",
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(
            "weights are not fetched over http, where anyone on the way can change them",
            file=url,
            fix=f"https{url[4:]}",
        )
    if parts.scheme not in ("https", "http") or not host or parts.path in ("", "/"):
        raise ConfigError(
            "weights cannot be fetched from this address",
            file=url,
            expected="https://HOST/FILE, hf://OWNER/REPO/FILE[@REVISION], or a path without ://",
        )


def _hub_url(source: str) -> str:
    # The revision may follow the repository, as in the Hub's own file system, or the path.
    form = r"hf://([^/@]+)/([^/@]+)(?:@([^/]+))?/([^@]*[^@/])(?:@(.+))?"
    match = re.fullmatch(form, source)
    if not match or (match[3] and match[5]):
        raise ConfigError(
            "this is not a file on the Hugging Face Hub",
            file=source,
            expected="hf://OWNER/REPO/PATH/IN/REPO or hf://OWNER/REPO/PATH/IN/REPO@REVISION",
        )
    owner, repo, path = (quote(match[group]) for group in (1, 2, 4))
    revision = quote(match[3] or match[5] or "main", safe="")
    endpoint = (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    return f"{endpoint}/{owner}/{repo}/resolve/{revision}/{path}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
