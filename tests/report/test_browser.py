"""The report in a real browser: volumes are drawn, nothing is requested, nothing complains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hsf_finetune.cli.main import main
from tests.report.test_run_report import finetune

pytestmark = pytest.mark.clients


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("there is no Chromium (Debian's package chromium)")
    return found


def in_chromium(page: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            browser(),
            *("--headless=new", "--no-sandbox", "--use-angle=swiftshader"),
            *("--enable-unsafe-swiftshader", "--disable-background-networking"),
            *("--disable-component-update", "--virtual-time-budget=30000"),
            *("--enable-logging=stderr", f"--user-data-dir={folder}/u", *more),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_reports_in_chromium(data: Path, source_run: Path, tmp_path: Path) -> None:
    run, page, out = finetune(data, tmp_path, source_run), tmp_path / "scans.html", tmp_path / "out"
    scans = sorted((data / "tiny").rglob("*_T2w.nii.gz"))[:2]
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(run), *map(str, scans), "-o", str(out), "--report", str(page)])
    own = re.compile(r"https?://[\w.-]+\.(?:google|googleapis|gvt1)\.com/")  # the browser's
    for report in (run / "report.html", page):
        log = tmp_path / f"{report.stem}.json"
        done = in_chromium(report, tmp_path, f"--log-net-log={log}", "--dump-dom")
        assert re.search(r'id="viewer-status"[^>]*>OK volumes: 2<', done.stdout)
        assert "CONSOLE" not in done.stderr
        events = json.loads(log.read_text())["events"]
        asked = {str(event.get("params", {}).get("url", "")) for event in events}
        assert not [u for u in asked if u.startswith(("http", "ws")) and not own.match(u)]
        assert report.stat().st_size < 4_000_000
