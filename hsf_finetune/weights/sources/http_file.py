"""A file over HTTPS into a partial file: retried, and resumed where it was cut off.

Files of the Hugging Face Hub come this way too, with the token that huggingface_hub finds:
the download of huggingface_hub 2 itself starts again after an interrupted run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.system.urls import Address, check_url
from hsf_finetune.system.version import __version__

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and the bytes in all."""

_ATTEMPTS = 4
"""In a row without a new byte, before an error."""
_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
"""The wait after the first failure, which each further one doubles; and the longest wait."""
_TIMEOUTS_S = (15.0, 60.0)
"""How long a server may take to connect, and how long it may send nothing."""
_BLOCK_BYTES = 1 << 16
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class PartialFile:
    """What has arrived of a file, and a note beside it (`.json`) that says which file."""

    path: Path
    url: str

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def read_note(self) -> dict[str, Any]:
        """`validator` and `total` bytes of the whole file; empty where they are unknown."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) and note.get("url") == self.url else {}

    def start(self, validator: str | None, total: int | None) -> None:
        """Makes an empty file with a note."""
        self.remove()
        self.path.touch()
        note = {"url": self.url, "validator": validator, "total": total}
        self._note.write_text(json.dumps(note), encoding="utf-8")

    def remove(self) -> None:
        """Removes both, the note first: without a note the file is never resumed."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")


def fetch_error(address: Address, what: str, found: object, fix: str) -> WeightsError:
    """The error for a file that could not be fetched, with a fix that always works."""
    source = "" if address.source == address.url else f"{address.source}, "
    by_hand = f"or fetch it with a browser and put it at\n{address.cache_file}"
    return WeightsError(what, file=source + address.url, found=found, fix=f"{fix}; {by_hand}")


def not_a_checkpoint(address: Address, found: str) -> WeightsError:
    """The error for something else where a checkpoint was expected."""
    fix = "give the address of the download button (on the Hub it has /resolve/, not /blob/)"
    return fetch_error(address, "the address does not lead to a checkpoint", found, fix)


def complete_file(address: Address, part: PartialFile, progress: Progress) -> None:
    """Downloads what a partial file lacks.

    A request asks for the missing bytes (`Range`) on the condition that the file is still
    the same (`If-Range`, RFC 9110 section 13.1.5). A server that does not know ranges, or
    has another file by then, sends the file from the start. Several attempts in a row that
    bring nothing new are an error; what has arrived is kept.

    Raises:
        WeightsError: the server refuses, is not reached, or sends something else.
        OSError: the file cannot be written.
    """
    failures, most = 0, part.size
    with requests.Session() as session:
        session.hooks["response"].append(_refuse_insecure_redirect)
        session.headers["User-Agent"] = f"hsf_finetune/{__version__}"
        # A compressed transfer has no ranges and no known length.
        session.headers["Accept-Encoding"] = "identity"
        while not part.size or part.size != part.read_note().get("total"):
            try:
                return _attempt(session, address, part, progress)
            except (requests.RequestException, ConnectionError, TimeoutError) as error:
                failures = 1 if part.size > most else failures + 1
                most = max(most, part.size)
                if failures >= _ATTEMPTS or _is_final(error):
                    raise _not_reached(address, part, error) from error
                response = getattr(error, "response", None)
                wait = "" if response is None else response.headers.get("Retry-After", "")
                wait_s = float(wait) if wait.isdecimal() else _PAUSE_S * 2 ** (failures - 1)
                time.sleep(min(wait_s, _MAX_PAUSE_S))


def _attempt(
    session: requests.Session, address: Address, part: PartialFile, progress: Progress
) -> None:
    note = part.read_note()
    done = part.size if note.get("validator") and note.get("total") else 0
    headers = {"Range": f"bytes={done}-", "If-Range": note["validator"]} if done else {}
    auth = _add_hub_token if address.hub else None
    with session.get(
        address.url, headers=headers, auth=auth, timeout=_TIMEOUTS_S, stream=True
    ) as response:
        _check_answer(response, address)
        if done and response.status_code != 200 and not _continues(response, done, note):
            part.remove()
            raise requests.ConnectionError("the file has changed in the meantime")
        if not done or response.status_code == 200:
            length = response.headers.get("Content-Length", "")
            done, note = 0, {"total": int(length) if length.isdecimal() else None}
            part.start(_validator(response), note["total"])
        total = note["total"]
        with part.path.open("ab") as file:
            progress(done, total or done)
            for block in response.iter_content(_BLOCK_BYTES):
                file.write(block)
                done += len(block)
                progress(done, total or done)
    if total is not None and done != total:
        if done > total:
            part.remove()
        raise requests.ConnectionError(f"{done:,} of {total:,} bytes arrived")


def _check_answer(response: requests.Response, address: Address) -> None:
    """Raises for every answer that is neither the file nor about the part asked for."""
    status, headers = response.status_code, response.headers
    accepted = (200, 206, 416) if "Range" in response.request.headers else (200,)
    found = f"HTTP status {status} ({headers.get('X-Error-Message') or response.reason})"
    if status in _TRANSIENT_STATUSES:
        raise requests.ConnectionError(found, response=response)
    if status not in accepted:
        fix = "check the address, best by opening it in a browser"
        if status in (401, 403) and address.hub:
            fix = "check owner and repository; if it is gated or private, accept its terms on its "
            fix += "page, then run `hf auth login` or set the environment variable HF_TOKEN"
        elif status in (401, 403):
            fix = "put user name and password into ~/.netrc: machine HOST login NAME password WORD"
        raise fetch_error(address, "the server does not give the file", found, fix)
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and status != 416:
        raise not_a_checkpoint(address, f"a web page (Content-Type: {kind})")


def _continues(response: requests.Response, done: int, note: dict[str, Any]) -> bool:
    """Whether the answer is the rest of the same file.

    A server may know ranges but not If-Range; then its validator and the size tell.
    """
    sent = response.headers.get("Content-Range", "")
    same = response.status_code == 206 and _validator(response) in (None, note["validator"])
    return same and sent.startswith(f"bytes {done}-") and sent.endswith(f"/{note['total']}")


def _validator(response: requests.Response) -> str | None:
    """What tells this version of a file from others: a strong ETag, or the date."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _is_final(error: Exception) -> bool:
    """Whether another attempt cannot succeed: redirects in a circle, or a malformed URL."""
    return isinstance(error, (requests.TooManyRedirects, ValueError)) or _is_untrusted(error)


def _is_untrusted(error: Exception) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _not_reached(address: Address, part: PartialFile, error: Exception) -> WeightsError:
    found = _innermost_reason(error)
    if part.size:
        found += f"; {part.size:,} bytes have arrived and are kept"
    fix = "check the address and the connection, and start again"
    if _is_untrusted(error):
        fix = "if your institution has its own certificate authority, set the environment "
        fix += "variable REQUESTS_CA_BUNDLE to its file"
    return fetch_error(address, "the file could not be fetched", found, fix)


def _innermost_reason(error: BaseException) -> str:
    """The reason of an error that requests and urllib3 wrap several times."""
    inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
    if isinstance(inner, BaseException):
        return _innermost_reason(inner)
    return str(error) or type(error).__name__


def _add_hub_token(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Adds the user's token for the Hub, which requests removes on the way to another host."""
    from huggingface_hub import get_token  # imported late: slow, and rarely needed

    if token := get_token():
        request.headers["Authorization"] = f"Bearer {token}"
    return request


def _refuse_insecure_redirect(response: requests.Response, *_: Any, **__: Any) -> None:
    if response.is_redirect:
        target = urljoin(response.url, response.headers["Location"])
        try:
            check_url(target)
        except ConfigError as error:
            raise WeightsError(
                f"a redirect of the server cannot be followed: {error.what}",
                file=response.url,
                found=target,
                fix="find another address for the file",
            ) from error
