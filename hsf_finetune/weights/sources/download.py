"""Fetching weights once: cached, checked, complete or not there at all."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hsf_finetune.system.checksum import Checksum, check_file
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.urls import Address, parse_address
from hsf_finetune.weights.sources.http_file import (
    PartialFile,
    Progress,
    complete_file,
    fetch_error,
    not_a_checkpoint,
)

_LOCK_POLL_S = 0.2


@dataclass(frozen=True)
class FetchedFile:
    """A file from the network.

    Args:
        path: where the file is kept.
        url: where the file came from; empty for one that the user has.
        checksum: the expected one, or the file's SHA-256 where none was given; None for a folder.
        checked: whether one was given.
        cached: whether the file was in the cache already.
    """

    path: Path
    url: str
    checksum: Checksum | None
    checked: bool
    cached: bool


def fetch_file(
    source: str,
    checksum: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> FetchedFile:
    """A file of the network, from the cache or else fetched into it.

    A file in the cache is never replaced or removed, whatever it holds: someone may have
    put it there. A download gets its name in the cache only once it is complete and has
    the checksum; two processes that want the same file fetch it once.

    Args:
        source: an https URL, or `hf://OWNER/REPO/PATH[@REVISION]`.
        checksum: `sha256:...`, `xxh3_64:...`, `md5:...` or the digits alone.
        offline: never use the network, as with HSF_FINETUNE_OFFLINE=1 (and, for `hf://`,
            HF_HUB_OFFLINE=1).
        progress: called with the bytes that have arrived and the bytes in all.

    Raises:
        ConfigError: the address or the checksum is malformed.
        WeightsError: the file cannot be fetched, or has another checksum.
    """
    address = parse_address(source)
    expected = Checksum.parse(checksum) if checksum else None
    target = address.cache_file
    cached = target.is_file()
    if not cached:
        if offline or _is_offline(address):
            what = "the file is not in the cache, and the network is not to be used (offline)"
            fix = "allow the network: finetuning.offline=false, no HSF_FINETUNE_OFFLINE and no "
            raise fetch_error(address, what, None, f"{fix}HF_HUB_OFFLINE")
        try:
            cached = not _download(address, expected, progress or (lambda done, total: None))
        except OSError as error:
            raise WeightsError(
                "the file could not be kept",
                file=address.url,
                found=f"{os.strerror(error.errno) if error.errno else error} ({target.parent})",
                fix="free some space there, make that folder writable, or set the environment "
                "variable HSF_FINETUNE_CACHE to another folder",
            ) from error
    if expected and cached:
        fix = f"correct the checksum; or move the file away to fetch {source} again"
        check_file(target, expected, fix)
    found = expected or Checksum.of_file(target)
    return FetchedFile(target, address.url, found, expected is not None, cached)


def _download(address: Address, expected: Checksum | None, progress: Progress) -> bool:
    """Downloads a file into the cache; False where another process did so meanwhile."""
    target = address.cache_file
    part = PartialFile(target.with_name(f"{target.name}.part"), address.url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _acquire_lock(address, part, progress):
        if target.is_file():
            return False
        complete_file(address, part, progress)
        try:
            _check_content(address, part.path)
            if expected:
                fix = "correct the checksum or the address; the download has been removed"
                check_file(part.path, expected, fix, address.url)
        except WeightsError:
            part.remove()
            raise
        with part.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part.path, target)
        part.remove()
    return True


def _acquire_lock(
    address: Address, part: PartialFile, progress: Progress
) -> AbstractContextManager[object]:
    """Waits until no other process fetches this file, and shows the progress of that one."""
    target = address.cache_file
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    while True:
        try:
            return lock.acquire(timeout=_LOCK_POLL_S)
        except Timeout:
            if total := part.read_note().get("total"):
                progress(part.size, total)
        except NotImplementedError as error:
            what = "the cache's file system has no locks, without which a file may be damaged"
            fix = "set the environment variable HSF_FINETUNE_CACHE to a folder on another disk"
            raise fetch_error(address, what, target.parent, fix) from error


def _check_content(address: Address, path: Path) -> None:
    """Refuses files that are certainly no checkpoint."""
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        raise not_a_checkpoint(address, "an empty file")
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise not_a_checkpoint(address, "a web page")
    if start.startswith(b"version https://git-lfs"):
        raise not_a_checkpoint(address, "a Git LFS pointer, not the file itself")


def _is_offline(address: Address) -> bool:
    if address.hub:
        from huggingface_hub.constants import HF_HUB_OFFLINE

        if HF_HUB_OFFLINE:
            return True
    return os.environ.get("HSF_FINETUNE_OFFLINE", "").lower() not in ("", "0", "false", "no")
