"""The terminal: lines, and progress that also suits a log file."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from hsf_finetune.system.processes import is_main_process

# Without a terminal (a log file, a cluster) rich would wrap at 80 columns.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def say(line: str) -> None:
    """One line, however long: a path that is broken in two cannot be copied."""
    console.print(line, markup=False, soft_wrap=True)


def count_of(number: int, noun: str) -> str:
    """A number and its noun: `1 case`, `3 cases`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class TitledTable(Table):
    """A table as all of them look; its title and caption may be wider than its columns.

    Args:
        title: lines above it.
        caption: lines below it.
    """

    def __init__(self, title: str = "", caption: str = "") -> None:
        super().__init__(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        self._above = Text(title, style="table.title")
        self._below = Text(caption, style="table.caption")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, table and caption, from top to bottom."""
        if self._above:
            yield self._above
        yield from super().__rich_console__(console, options)
        if self._below:
            yield self._below


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on a terminal; without one, a line now and then."""
    if not console.is_terminal:
        yield _Sparse(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def download(what: str) -> Iterator[Callable[[int, int], None]]:
    """As `progress`, in bytes; nothing is shown before the first of them."""
    if not console.is_terminal:
        yield _Sparse(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


class _Sparse:
    """Progress for a log file: one line every half minute."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._said > 30 and is_main_process():
            self._said = time.monotonic()
            say(f"{self._what}: {done}/{total}")


def text_of(*parts: RenderableType) -> str:
    """Tables and lines as plain text.

    Args:
        parts: what `console.print` would print.
    """
    page = io.StringIO()
    Console(file=page, width=110).print(*parts, sep="\n")
    return page.getvalue().rstrip()


def html_of(*parts: RenderableType) -> str:
    """Tables and lines as HTML, for a notebook.

    Args:
        parts: what `console.print` would print.
    """
    page = Console(record=True, file=io.StringIO(), width=110)
    page.print(*parts, sep="\n")
    return page.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
