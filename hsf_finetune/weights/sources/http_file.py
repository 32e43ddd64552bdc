"""A file over HTTP, in as many pieces as the connection allows."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ContentDecodingError,
    RequestException,
    Timeout,
)

from hsf_finetune import __version__
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.system.urls import Address, check_url
from hsf_finetune.weights.sources.part import Part
from hsf_finetune.weights.sources.undelivered import (
    no_room,
    not_a_file,
    not_trusted,
    refused,
    unreachable,
)

Progress = Callable[[int, int], None]
"""Bytes that are there, bytes in all."""

_CHUNK_BYTES = 1 << 16
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_CUT = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Args:
        attempts: tries in a row that bring nothing new before giving up.
        pause_s: wait after the first of them; each further one doubles it.
        longest_pause_s: the most it grows to, and the most a server may ask for.
        connect_s: how long a server may take to answer.
        silence_s: how long it may send nothing.
    """

    attempts: int = 4
    pause_s: float = 1.0
    longest_pause_s: float = 30.0
    connect_s: float = 15.0
    silence_s: float = 60.0


class _Transient(Exception):  # noqa: N818 (no error yet: the next attempt may succeed)
    """This attempt failed; another may not."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class ResumingDownload:
    """A downloader for pooch that goes on where an earlier attempt, or run, was cut off.

    What has arrived stays in a part file. The next request asks for the rest (`Range`) on
    condition that the file is still the same (`If-Range`, RFC 9110 section 13.1.5); a
    server that knows no ranges, or has another file by now, sends it from the start.

    Args:
        address: of the file.
        part: where it grows.
        progress: is told the bytes that are there and the bytes in all.
        patience: time-outs and retries.
        check: looks at the complete file before it is handed over.
    """

    def __init__(
        self,
        address: Address,
        part: Part,
        progress: Progress | None,
        patience: Patience,
        check: Callable[[Path], None],
    ) -> None:
        self._address, self._part, self._patience = address, part, patience
        self._progress = progress or (lambda done, total: None)
        self._check = check

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Fetches the file; the signature is pooch's.

        Raises:
            WeightsError: it cannot be had, or is not what was expected.
        """
        with requests.Session() as session:
            session.hooks["response"].append(_refuse_insecure_redirect)
            session.headers["User-Agent"] = f"hsf_finetune/{__version__}"
            # A compressed transfer has no ranges and no known length.
            session.headers["Accept-Encoding"] = "identity"
            self._persist(session)
        try:
            reason = _no_checkpoint(self._part.path)
            if reason:
                raise not_a_file(self._address, reason)
            self._check(self._part.path)
        except WeightsError:
            self._part.discard()
            raise
        self._part.hand_over(output_file)

    def _persist(self, session: requests.Session) -> None:
        """Attempts until the file is complete, or several in a row brought nothing new."""
        patience, failures, most = self._patience, 0, self._part.size
        while True:
            try:
                return self._attempt(session)
            except _Transient as error:
                failures = 1 if self._part.size > most else failures + 1
                most = max(most, self._part.size)
                if failures >= patience.attempts:
                    raise unreachable(self._address, str(error), self._part.path) from error
                wait_s = error.wait_s or patience.pause_s * 2 ** (failures - 1)
                time.sleep(min(wait_s, patience.longest_pause_s))

    def _attempt(self, session: requests.Session) -> None:
        headers, have = self._ask_for()
        auth = _bearer if self._address.hub and os.environ.get("HF_TOKEN") else None
        timeout = (self._patience.connect_s, self._patience.silence_s)
        try:
            with session.get(
                self._address.url, headers=headers, auth=auth, timeout=timeout, stream=True
            ) as response:
                self._receive(response, have)
        except _CUT as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise not_trusted(self._address, _root(error)) from error
            raise _Transient(_root(error)) from error
        except RequestException as error:
            raise unreachable(self._address, _root(error), self._part.path) from error
        except (BrokenPipeError, ConnectionResetError, TimeoutError) as error:
            raise _Transient(str(error)) from error
        except OSError as error:
            raise no_room(self._address, error, self._part.path) from error

    def _ask_for(self) -> tuple[dict[str, str], int]:
        """Headers that ask for what is missing, and the bytes that are there."""
        have = self._part.size
        validator = self._part.note(self._address.url).get("validator")
        if not have or not validator:
            return {}, 0
        return {"Range": f"bytes={have}-", "If-Range": str(validator)}, have

    def _receive(self, response: requests.Response, have: int) -> None:
        """Writes one answer to the part file; it is complete where this returns."""
        self._refuse(response)
        if have and response.status_code in (206, 416):
            total = self._rest(response, have)
        else:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            self._part.begin(self._address.url, _validator(response), total)
            have = 0
        self._write(response, have, total)

    def _rest(self, response: requests.Response, have: int) -> int | None:
        """Size of the whole, once the answer is known to go on where the part ends."""
        note = self._part.note(self._address.url)
        first, total = _content_range(response)
        # Nothing is left where the part was complete (416). A server may know ranges, but
        # not If-Range: then its validator tells.
        fits = first == have or (response.status_code == 416 and total == have)
        same = _validator(response) in (None, note.get("validator"))
        if not (fits and same and total == note.get("total")):
            self._part.discard()
            raise _Transient("the file has changed in the meantime")
        return total

    def _write(self, response: requests.Response, have: int, total: int | None) -> None:
        with self._part.path.open("ab") as file:
            self._progress(have, total or have)
            # A 416 may have a body of its own: an explanation.
            for chunk in response.iter_content(_CHUNK_BYTES) if response.ok else ():
                file.write(chunk)
                have += len(chunk)
                self._progress(have, total or have)
        if total is not None and have != total:
            if have > total:
                self._part.discard()
            raise _Transient(f"{have:,} of {total:,} bytes arrived")

    def _refuse(self, response: requests.Response) -> None:
        """Raises for every answer that is not the file, or a part of it."""
        status = response.status_code
        if status in _TRANSIENT:
            after = response.headers.get("Retry-After", "")
            raise _Transient(
                f"HTTP status {status} ({response.reason})",
                float(after) if after.isdecimal() else None,
            )
        if status not in (200, 206, 416):
            raise refused(self._address, status, response.reason)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if status != 416 and kind in ("text/html", "application/xhtml+xml"):
            raise not_a_file(self._address, f"a web page (Content-Type: {kind})")


def _bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The user's token for the Hub, which requests drops where it is sent to another host."""
    request.headers["Authorization"] = f"Bearer {os.environ['HF_TOKEN']}"
    return request


def _refuse_insecure_redirect(response: requests.Response, *_: Any, **__: Any) -> None:
    if response.is_redirect:
        onwards = urljoin(response.url, response.headers["Location"])
        try:
            check_url(onwards)
        except ConfigError as error:
            raise WeightsError(
                f"a redirect of the server cannot be followed: {error.what}",
                file=response.url,
                found=onwards,
                fix="find another address for the file",
            ) from error


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and size of the whole, from `bytes 100-199/200` or `bytes */200`."""
    match = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
    )
    if not match:
        return None, None
    first, total = match.groups()
    return int(first) if first else None, int(total) if total != "*" else None


def _validator(response: requests.Response) -> str | None:
    """What tells this version of a file from others: a strong ETag, or the date."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _no_checkpoint(path: Path) -> str | None:
    """What a file turns out to be that is certainly no checkpoint."""
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        return "an empty file"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself"
    return None


def _root(error: BaseException) -> str:
    """The innermost reason, which requests and urllib3 wrap several times."""
    inner: object = error
    while isinstance(inner, BaseException):
        text = str(inner)
        reason = getattr(inner, "reason", None) or inner.__cause__ or inner.__context__
        if not isinstance(reason, BaseException):
            return text or type(inner).__name__
        inner = reason
    return str(inner)
