"""The documentation's site is built strictly, and needs no other server."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs.code_blocks import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docs"))
from site_pages import conf_page, site_links

LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//"
    r"|<link[^>]*\srel=[\"']?(?:stylesheet|preconnect|preload)[^>]*\shref=[\"']?(?:https?:)?//"
    r"|(?:@import|url\()\s*[\"']?(?:https?:)?//"
)
"""A script, style, font or picture of another server."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(REPOSITORY / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


def test_it_is_built_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    files = [path for kind in ("html", "css") for path in site.rglob(f"*.{kind}")]
    assert len(files) > 20
    loading = [path for path in files if LOADED.search(path.read_text(encoding="utf-8"))]
    assert not loading


def test_every_public_name_has_an_entry(site: Path) -> None:
    import hsf_finetune

    page = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").iterdir())
    names = [name for name in hsf_finetune.__all__ if not name.startswith("__")]
    missing = [name for name in names if not re.search(rf'id="hsf_finetune[\w.]*\.{name}"', page)]
    assert not missing


def test_every_file_of_conf_is_shown() -> None:
    page = conf_page()
    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        assert f"## {path.relative_to(REPOSITORY / 'conf').as_posix()} {{#" in page


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "docs/weights.md#the-head", "weights.md#the-head"),
        ("index.md", "conf/datasets/custom.yaml", "reference/conf.md#datasets-custom"),
        ("index.md", "CONTRIBUTING.md", "contributing.md"),
        ("weights.md", "../conf/weights", "reference/conf.md"),
        ("coming_from/hsf.md", "../labels.md", "../labels.md"),
        ("coming_from/hsf.md", "../../README.md#measured", "../index.md#measured"),
        ("python.md", "../examples/quickstart.ipynb", "quickstart.md"),
        ("data.md", "https://monai.io", "https://monai.io"),
        ("data.md", "#labels", "#labels"),
    ],
)
def test_links_of_the_repository_lead_to_pages(page: str, link: str, expected: str) -> None:
    assert site_links(f"[a]({link})", page) == f"[a]({expected})"
