"""The terminal: lines, and progress that also suits a log file."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from hsf_finetune.system.interruption import end_if_asked
from hsf_finetune.system.processes import is_main_process

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that command a terminal, reverse a line, or cannot be printed."""


def show_controls(text: str) -> str:
    """The text with control characters, which file names may hold, as escape sequences."""
    return _CONTROLS.sub(lambda c: c[0].encode("unicode_escape").decode(), text)


class _SafeConsole(Console):
    """A console that what it prints cannot command."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else show_controls(text), style, control)


# Without a terminal (a log file, a cluster) rich would wrap at 80 columns.
console = _SafeConsole(highlight=False, width=None if sys.stdout.isatty() else 110)


def say(line: str) -> None:
    """One line, however long: a path that is broken in two cannot be copied."""
    console.print(line, markup=False, soft_wrap=True)


def count_of(number: int, noun: str) -> str:
    """A number and its noun: `1 case`, `3 cases`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shorten_list(names: Sequence[str], count: int = 3) -> str:
    """The first names, and how many there are."""
    rest = f", ... ({len(names)})" if len(names) > count else ""
    return ", ".join(names[:count]) + rest


def format_size(value: float, digits: int = 3, sign: str = "") -> str:
    """A length or volume of any scale, from metres to nanometres, as a number for people.

    Args:
        value: in mm or mm3.
        digits: that count; those before the point are all written.
        sign: `+` writes the sign of positive values, too.
    """
    return format(value, f"{sign}.0f" if abs(value) >= 10**digits else f"{sign}.{digits}g")


class TitledTable(Table):
    """A table as all of them look; its title and caption may be wider than its columns.

    Args:
        title: lines above it.
        caption: lines below it.
    """

    def __init__(self, title: str = "", caption: str = "") -> None:
        super().__init__(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        self.above, self.below = title, caption

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, table and caption, from top to bottom."""
        if self.above:
            yield Text(self.above, style="table.title")
        yield from super().__rich_console__(console, options)
        if self.below:
            yield Text(self.below, style="table.caption")


@contextmanager
def progress(what: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on a terminal; without one, a line now and then.

    Of bytes, as of a download, nothing is shown before the first of them. A loop that has been
    asked to end does so when it tells how far it is (`system.interruption`).
    """
    if not console.is_terminal:
        yield _log_progress(what)
        return
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, visible=not in_bytes)

        def tick(done: int, total: int) -> None:
            end_if_asked()
            bar.update(task, completed=done, total=total, visible=True)

        yield tick


def _log_progress(what: str) -> Callable[[int, int], None]:
    """Progress for a log file: one line every half minute."""
    last = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal last
        end_if_asked()
        if time.monotonic() - last > 30 and is_main_process():
            last = time.monotonic()
            say(f"{what}: {done}/{total}")

    return tick


def text_of(*parts: RenderableType) -> str:
    """Tables and lines, as `console.print` takes them, as plain text."""
    page = io.StringIO()
    _SafeConsole(file=page, width=110).print(*parts, sep="\n")
    return page.getvalue().rstrip()


def html_of(*parts: RenderableType) -> str:
    """Tables and lines, as `console.print` takes them, as HTML for a notebook."""
    page = _SafeConsole(record=True, file=io.StringIO(), width=110)
    page.print(*parts, sep="\n")
    return page.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
