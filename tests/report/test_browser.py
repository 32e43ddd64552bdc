"""Every kind of report in a real browser: volumes, requests, complaints, accessibility, paper.

axe-core, which finds faults of accessibility, is fetched by `make test-clients` and is no part
of the package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from hsf_finetune.cli.main import main
from tests.report.conftest import finetune

pytestmark = pytest.mark.clients

VIEWS = {"run": 2, "folds": 4, "predict": 2, "compare": 0, "evaluate": 0}
"""Kind of report -> how many cases it shows as volumes."""
A4_POINTS, A4_MARGINS_PX = (595, 842), "680,1000"
"""Size of the paper, and of a window as wide as what the margins of 15 mm leave of it."""


@pytest.fixture(scope="module")
def pages(
    data: Path, run: Path, source_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Kind of report -> its file."""
    folder = tmp_path_factory.mktemp("pages")
    scans = sorted((data / "tiny").rglob("*_T2w.nii.gz"))[:2]
    label = next((data / "tiny").rglob("*_dseg.nii.gz"))
    names = "10=anterior,20=posterior"
    predicted, scored = folder / "predict.html", folder / "evaluate.html"
    for command in (
        [
            "predict",
            str(run),
            *map(str, scans),
            "-o",
            str(folder / "o"),
            "--report",
            str(predicted),
        ],
        ["compare", "--runs", str(run), "--on", "validation", "-o", str(folder / "compared")],
        ["evaluate", str(label), str(label), "--labels", names, "--report", str(scored)],
    ):
        with pytest.raises(SystemExit, match="0"):
            main(command)
    several = ("datasets.fold=all", "datasets.folds=2", "lightning.max_epochs=1")
    return {
        "run": run / "report.html",
        "folds": finetune(data, folder, source_run, *several) / "report.html",
        "predict": predicted,
        "compare": folder / "compared" / "report.html",
        "evaluate": scored,
    }


def in_chromium(page: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no Chromium (Debian's package chromium)")
    return subprocess.run(
        [
            browser,
            *("--headless=new", "--no-sandbox", "--use-angle=swiftshader"),
            *("--enable-unsafe-swiftshader", "--disable-background-networking"),
            *("--disable-component-update", "--virtual-time-budget=60000"),
            *("--enable-logging=stderr", f"--user-data-dir={folder}/u", *more),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def found_by(script: str, page: Path, folder: Path, *more: str) -> Any:
    """What an asynchronous function returns in a page, once its volumes are drawn."""
    text, copy = page.read_text("utf-8"), folder / "probed.html"
    end = text.rindex("</body>")
    wait = "const s = document.getElementById('viewer-status'); while (s && !s.textContent) "
    wait += "await new Promise((go) => setTimeout(go, 100));"
    write = "document.body.append(Object.assign(document.createElement('pre'), "
    write += "{id: 'found', textContent: JSON.stringify(found)}));"
    probe = (
        f"addEventListener('load', async () => {{{wait} const found = await {script}; {write}}})"
    )
    copy.write_text(f"{text[:end]}<script>{probe}</script>{text[end:]}", "utf-8")
    done = in_chromium(copy, folder, "--dump-dom", *more)
    answer = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer, done.stderr
    return json.loads(unescape(answer[1]))


@pytest.mark.parametrize("kind", VIEWS)
def test_volumes_are_drawn_and_nothing_is_requested(
    pages: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    report, log = pages[kind], tmp_path / "log.json"
    own = re.compile(r"https?://[\w.-]+\.(?:google|googleapis|gvt1)\.com/")  # the browser's
    done = in_chromium(report, tmp_path, f"--log-net-log={log}", "--dump-dom")
    status = re.search(r'id="viewer-status"[^>]*>([^<]*)<', done.stdout)
    assert (status and status[1]) == (f"OK volumes: {VIEWS[kind]}" if VIEWS[kind] else None)
    assert "CONSOLE" not in done.stderr
    events = json.loads(log.read_text())["events"]
    asked = {str(event.get("params", {}).get("url", "")) for event in events}
    assert not [u for u in asked if u.startswith(("http", "ws")) and not own.match(u)]
    assert report.stat().st_size < 4_000_000


@pytest.mark.parametrize("kind", VIEWS)
def test_axe_finds_no_fault(pages: dict[str, Path], tmp_path: Path, kind: str) -> None:
    if not (axe := os.environ.get("HSF_FINETUNE_AXE")):
        pytest.skip("axe-core is not named in HSF_FINETUNE_AXE (make test-clients fetches it)")
    library = Path(axe, "axe.min.js").read_text("utf-8").replace("</script", "<\\/script")
    page = tmp_path / "page.html"
    text = pages[kind].read_text("utf-8")
    page.write_text(text.replace("</head>", f"<script>{library}</script></head>", 1), "utf-8")
    shown = "(v) => [v.impact, v.id, v.help, v.nodes.map((n) => n.html)]"
    script = f"axe.run(document).then((r) => [r.violations.map({shown}), r.passes.length])"
    faults, passed = found_by(f"({script})", page, tmp_path)
    assert not faults
    assert passed > 10


@pytest.mark.parametrize("kind", VIEWS)
def test_paper_is_a4_and_nothing_is_cut(pages: dict[str, Path], tmp_path: Path, kind: str) -> None:
    paper = tmp_path / "paper.pdf"
    in_chromium(pages[kind], tmp_path, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    boxes = re.findall(rb"/MediaBox ?\[([\d. ]+)\]", paper.read_bytes())
    assert boxes
    assert {tuple(round(float(n)) for n in box.split()) for box in boxes} == {(0, 0, *A4_POINTS)}
    page = tmp_path / "page.html"
    page.write_text(
        pages[kind].read_text("utf-8").replace("@media print", "@media screen"), "utf-8"
    )
    beyond = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect()"
    beyond += ".right > document.documentElement.clientWidth + 1).map((e) => e.outerHTML)"
    assert not found_by(beyond, page, tmp_path, f"--window-size={A4_MARGINS_PX}")
