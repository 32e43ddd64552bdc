"""An export is sent to the Hugging Face Hub: here, to a server on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

import hsf_finetune as hf
from hsf_finetune.export.upload import repository_of
from hsf_finetune.system.errors import ConfigError, OutputError
from tests.export.models import random_model


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a first commit needs; files come inside of it."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if name in self.repositories or "private" not in wanted.values():
                return self.answer({"error": "You already created this model repo"}, 409)
            self.repositories[name] = {}
            return self.answer({"url": f"http://{self.headers['Host']}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        name = self.path.removeprefix("/api/models/").rsplit("/", 2)[0]
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            return self.answer({"files": [m | {"shouldIgnore": False} for m in modes]})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.repositories[name][entry["value"]["path"]] = content
        return self.answer(
            {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/1", "commitOid": "1"}
        )

    def answer(self, content: Any, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, bytes]]]:
    """The repositories of a hub: name -> files."""
    Hub.repositories = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield Hub.repositories
    server.shutdown()


def test_a_finished_export_is_sent_once(hub: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    folder = tmp_path / "made"
    sent = hf.export(random_model(), "checkpoint", folder, proof=False, upload="hf://me/mine")
    assert hub == {"me/mine": {p.name: p.read_bytes() for p in folder.iterdir()}}
    assert sent.page in str(sent)
    assert b"pipeline_tag: image-segmentation" in hub["me/mine"]["README.md"]
    with pytest.raises(OutputError, match="the folder is complete"):
        hf.export(random_model(), "checkpoint", tmp_path / "b", proof=False, upload="hf://me/mine")
    assert (tmp_path / "b" / "README.md").exists()


@pytest.mark.parametrize("address", ["me/mine", "hf://mine", "hf://me/mine/model.ckpt"])
def test_an_address_of_another_form_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hf://OWNER/NAME"):
        repository_of(address)
