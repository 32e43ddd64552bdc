"""The report in a real browser: volumes are drawn, nothing is requested, nothing complains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.test_run_report import finetune

pytestmark = pytest.mark.clients


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("there is no Chromium (Debian's package chromium)")
    return found


def test_report_in_chromium(data: Path, source_run: Path, tmp_path: Path) -> None:
    folder, log = finetune(data, tmp_path, source_run), tmp_path / "net.json"
    done = subprocess.run(
        [
            browser(),
            *("--headless=new", "--no-sandbox", "--use-angle=swiftshader"),
            *("--enable-unsafe-swiftshader", "--disable-background-networking"),
            *("--disable-component-update", "--virtual-time-budget=30000"),
            *("--enable-logging=stderr", f"--log-net-log={log}", f"--user-data-dir={tmp_path}/u"),
            "--dump-dom",
            (folder / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert re.search(r'id="viewer-status"[^>]*>OK volumes: 2<', done.stdout)
    assert "CONSOLE" not in done.stderr
    events = json.loads(log.read_text())["events"]
    asked = {str(event.get("params", {}).get("url", "")) for event in events}
    own = re.compile(r"https?://[\w.-]+\.(?:google|googleapis|gvt1)\.com/")  # the browser's
    assert not [url for url in asked if url.startswith(("http", "ws")) and not own.match(url)]
