"""A web server on this machine that supports ranges, and fails as tests demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """A request, and how many bytes of a body were sent."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Site:
    """What a server has, and how it fails; a test may change it at any time."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers are cut off."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next answers, in place of the file."""
    knows_ranges: bool = True
    knows_if_range: bool = True
    has_validators: bool = True
    shift: int = 0
    """How far from the requested byte a range begins."""
    content_type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    pause: threading.Event | None = None
    """Answers stop half way until this is set."""
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(request.sent for request in self.requests)

    @property
    def ranges(self) -> list[str | None]:
        """The range that each request asked for."""
        return [request.headers.get("Range") for request in self.requests]


@contextmanager
def serving(context: Any = None) -> Iterator[Site]:
    """A server in a thread; `context` is an ssl.SSLContext for https."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """No log."""

        def do_GET(self) -> None:
            _answer(site, self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(site: Site, handler: BaseHTTPRequestHandler) -> None:
    request = Request(handler.path, dict(handler.headers.items()))
    site.requests.append(request)
    body = site.files.get(handler.path)
    if handler.path in site.redirects:
        return _head(handler, request, 302, {"Location": site.redirects[handler.path]})
    status = site.statuses.pop(0) if site.statuses else 404 if body is None else 200
    if status != 200 or body is None:
        return _head(handler, request, status, {"Content-Length": "0", **site.headers})
    headers = {"Content-Type": site.content_type, **site.headers}
    tag = f'"{hashlib.md5(body).hexdigest()}"'
    if site.has_validators:
        headers["ETag"] = tag
    first = _first(site, request, tag)
    if first is not None:
        first += site.shift
    if first is not None and first >= len(body):
        headers |= {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"}
        return _head(handler, request, 416, headers)
    if first is not None:
        headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        body = body[first:]
    headers["Content-Length"] = str(len(body))
    _head(handler, request, 200 if first is None else 206, headers)
    end = site.cuts.pop(0) if site.cuts else len(body)
    half = end // 2 if site.pause else end
    _send(handler, request, body[:half])
    if site.pause:
        site.pause.wait(20)
        _send(handler, request, body[half:end])


def _first(site: Site, request: Request, tag: str) -> int | None:
    match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    condition = request.headers.get("If-Range", tag)
    if not match or not site.knows_ranges or (site.knows_if_range and condition != tag):
        return None
    return int(match.group(1))


def _head(
    handler: BaseHTTPRequestHandler, request: Request, status: int, headers: dict[str, str]
) -> None:
    request.status = status
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def _send(handler: BaseHTTPRequestHandler, request: Request, body: bytes) -> None:
    try:
        handler.wfile.write(body)
        handler.wfile.flush()
        request.sent += len(body)
    except OSError:
        return
