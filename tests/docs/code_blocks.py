"""Code blocks of the documentation: where they stand, in which language, and what they need.

A block that is not run has a comment right before it that says why:
`<!-- needs: a GPU -->` or `<!-- example of output -->`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
LANGUAGES = {"bash", "python", "yaml", "text"}
"""What a block may be; `text` is for what is neither a command nor a setting."""

_FENCE = re.compile(r"^( *)```(.*)$")
_MARKER = re.compile(r"^ *<!-- (?:needs: (?P<needs>[^>]+?)|(?P<output>example of output)) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        page: its file, relative to the repository.
        line: number of its first line, from 1.
        language: as the fence names it.
        text: what it holds.
        marker: what it needs that a test has not, or that it shows output; None where it runs.
    """

    page: str
    line: int
    language: str
    text: str
    marker: str | None

    def __str__(self) -> str:
        """Page and line, as an editor takes them."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The command lines of a shell block, each as its words."""
        return commands_of(self.text)


def commands_of(text: str) -> list[list[str]]:
    """The command lines of a shell text, without comments, each as its words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: tuple[int, str, str] | None = None
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if opened is None:
            opened = number, fence[2].strip(), fence[1]
            continue
        first, language, indent = opened
        text = "\n".join(one.removeprefix(indent) for one in lines[first : number - 1])
        before = [one for one in lines[: first - 1] if one.strip()][-1:]
        found = _MARKER.match(before[0]) if before else None
        marker = (found["needs"] or found["output"]) if found else None
        name = page.relative_to(REPOSITORY).as_posix()
        yield Block(name, first, language, text + "\n", marker)
        opened = None
    assert opened is None, f"{page}:{opened and opened[0]}: the block does not end"


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in PAGES for block in blocks_of(page)]


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
