"""Fetching weights once: cached, checked, complete or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch
from filelock import FileLock, Timeout

from hsf_finetune.system.checksum import Checksum, check_file
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.urls import Address, address_of
from hsf_finetune.weights.sources.http_file import Patience, Progress, ResumingDownload
from hsf_finetune.weights.sources.part import Part
from hsf_finetune.weights.sources.undelivered import by_hand, no_room

_LOOK_AGAIN_S = 0.2


@dataclass(frozen=True)
class Fetched:
    """A file from the network.

    Args:
        path: where it is kept.
        url: where it came from.
        checksum: the one it was checked against, or its SHA-256 where none was given.
        checked: whether one was given.
        cached: whether it was there already.
    """

    path: Path
    url: str
    checksum: Checksum
    checked: bool
    cached: bool


def fetch(
    source: str,
    checksum: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """A file of the network, from the cache or else fetched into it.

    A file that is there is never replaced or removed, whatever it holds: someone may have
    put it there. What arrives gets its name in the cache only once it is complete and has
    the checksum; two processes that want the same file fetch it once.

    Args:
        source: an https URL, or `hf://owner/repo/path[@revision]`.
        checksum: `sha256:...`, `xxh3_64:...`, `md5:...` or the digits alone.
        offline: never use the network; HSF_FINETUNE_OFFLINE=1 does the same.
        progress: is told the bytes that are there and the bytes in all.
        patience: time-outs and retries.

    Raises:
        ConfigError: the address or the checksum is malformed.
        WeightsError: the file cannot be had, or has another checksum.
    """
    address = address_of(source)
    wanted = Checksum.parse(checksum) if checksum else None
    target = address.cache_file
    cached = target.exists()
    if not cached:
        if offline or _offline_by_environment():
            raise WeightsError(
                "the file is not in the cache, and the network is not to be used (offline)",
                file=address.url,
                fix=f"{by_hand(address)}\nor allow the network: finetuning.offline=false, and no "
                "HSF_FINETUNE_OFFLINE",
            )
        cached = _download(address, wanted, progress, patience or Patience())
    if not target.is_file():
        raise WeightsError("this should be a file", file=target, found="a folder")
    if wanted and cached:
        check_file(
            target, wanted, f"correct the checksum; or move the file away to fetch {source} again"
        )
    return Fetched(
        target, address.url, wanted or Checksum.of_file(target), wanted is not None, cached
    )


def _download(
    address: Address, wanted: Checksum | None, progress: Progress | None, patience: Patience
) -> bool:
    """Fetches a file into the cache; returns whether another process did meanwhile."""
    target = address.cache_file
    part = Part(target.with_name(f"{target.name}.part"))

    def check(path: Path) -> None:
        if wanted:
            fix = "correct the checksum, or the address; what arrived has been removed"
            check_file(path, wanted, fix, address.url)

    pooch.get_logger().setLevel("WARNING")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target, part, address, progress):
            if target.exists():
                return True
            pooch.retrieve(
                address.url,
                str(wanted) if wanted else None,
                fname=target.name,
                path=target.parent,
                downloader=ResumingDownload(address, part, progress, patience, check),
            )
    except OSError as error:
        raise no_room(address, error, target.parent) from error
    return False


@contextmanager
def _alone(target: Path, part: Part, address: Address, progress: Progress | None) -> Iterator[None]:
    """Waits until no other process fetches this file, and shows how far that one is."""
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=_LOOK_AGAIN_S)
            break
        except Timeout:
            total = part.note(address.url).get("total")
            if progress and total:
                progress(part.size, total)
        except NotImplementedError as error:
            raise WeightsError(
                "the cache's file system has no locks, without which a file may be damaged",
                file=target.parent,
                fix="set the environment variable HSF_FINETUNE_CACHE to a folder on another disk; "
                f"or {by_hand(address)}",
            ) from error
    try:
        yield
    finally:
        lock.release()


def _offline_by_environment() -> bool:
    return os.environ.get("HSF_FINETUNE_OFFLINE", "").lower() not in ("", "0", "false", "no")
