"""Pages of the site that are made from files outside docs/: a hook of MkDocs."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "CITATION.cff",
}
"""File at the root -> file of the site."""
CONF_PAGE = "reference/conf.md"
NOTEBOOK, NOTEBOOK_PAGE = "examples/quickstart.ipynb", "quickstart.md"
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CONF_TITLE = """# Files of conf/

The shipped settings, with their defaults and a comment above each key. The first part of a
file's path is its group: `conf/finetuning/hsf.yaml` is `finetuning=hsf`. A folder of your own,
given with `--config-dir`, may hold files of the same groups.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from files at the root, and the one that shows conf/."""
    from mkdocs.structure.files import File

    for source, page in FROM_ROOT.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    files.append(File.generated(config, CONF_PAGE, content=conf_page()))
    files.append(File.generated(config, NOTEBOOK_PAGE, content=notebook_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to files of the repository to what the site has in their place."""
    return site_links(markdown, page.file.src_uri)


def conf_page() -> str:
    """Every YAML file of conf/ as it is, each below a heading of its own."""
    parts = [_CONF_TITLE]
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        name = path.relative_to(ROOT / "conf").as_posix()
        text = path.read_text(encoding="utf-8").rstrip()
        parts.append(f"## {name} {{#{conf_anchor(name)}}}\n\n```yaml\n{text}\n```\n")
    return "\n".join(parts)


def notebook_page() -> str:
    """The notebook's text and code."""
    cells = json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    parts = [f"```python\n{text}\n```" if kind == "code" else text for kind, text in texts]
    return "\n\n".join(parts) + f"\n\nThis page is the notebook `{NOTEBOOK}`.\n"


def conf_anchor(name: str) -> str:
    """The anchor of a file below conf/ on its page."""
    return name.removesuffix(".yaml").replace("/", "-").replace("_", "-")


def site_links(markdown: str, page: str) -> str:
    """The text of a page with its links as the site needs them.

    Args:
        markdown: whose links are relative to the file's place in the repository.
        page: the site's file, such as `coming_from/hsf.md`.
    """
    sources = {target: source for source, target in FROM_ROOT.items()}
    source = sources.get(page, f"docs/{page}")

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        anchor = found[2] or ""
        if path == "conf" or path.startswith("conf/"):
            name = path.removeprefix("conf").strip("/")
            target, anchor = CONF_PAGE, f"#{conf_anchor(name)}" if name.endswith(".yaml") else ""
        else:
            target = {**FROM_ROOT, NOTEBOOK: NOTEBOOK_PAGE}.get(path, path.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(link, markdown)
