"""A page of sections, and its file: self-contained HTML that requests nothing."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.table import Table

from hsf_finetune.report.figures import to_svg
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.console import TitledTable, show_controls
from hsf_finetune.system.version import __version__

VIEWER = "niivue.umd.js.gz"
"""NiiVue 0.69.0 (BSD 2-clause, see NIIVUE_LICENSE.txt): the volume viewer of the page."""

_NUMBER = re.compile(r"[-+<]? ?\.?\d|-?$")


@dataclass(frozen=True)
class Lines:
    """Paragraphs, or the items of a list.

    Args:
        lines: as plain text.
        kind: how they are shown.
    """

    lines: Sequence[str]
    kind: str = field(default="paragraphs")


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Args:
        header: of the columns, the first of which names the rows.
        rows: cells, as many as the header has.
        title: above it.
        note: below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, and are aligned to the right."""
        columns = [*zip(*self.rows, strict=True)] or [()] * len(self.header)
        return [n > 0 and all(map(_NUMBER.match, column)) for n, column in enumerate(columns)]

    @classmethod
    def from_rich(cls, table: Table) -> Grid:
        """A table of the terminal, so that both show the same figures."""
        above, below = str(table.title or ""), str(table.caption or "")
        if isinstance(table, TitledTable):
            above, below = table.above, table.below
        return cls(
            header=[str(column.header) for column in table.columns],
            rows=[*zip(*([str(cell) for cell in c.cells] for c in table.columns), strict=True)],
            title=above,
            note=below,
        )


@dataclass(frozen=True)
class Picture:
    """A drawing, as SVG inside the page.

    Args:
        figure: the drawing.
        text: what it shows, for those who cannot see it.
        note: below it.
    """

    figure: Figure
    text: str
    note: str = ""

    @property
    def svg(self) -> Markup:
        """The drawing; its text is selectable."""
        return Markup(to_svg(self.figure, self.text))


@dataclass(frozen=True)
class CaseView:
    """A case to look at: image, label and segmentation.

    Args:
        name: of the case.
        scores: what it scored, or what is known of it, in a line.
        picture: PNG in base64 of the planes through the middle, shown where there is no WebGL2.
        volumes: `image`, `label` where there is one, and `segmentation` -> NIfTI, gzipped, in base64.
        centre: where the viewer starts, as shares of the three axes.
        names: names of the values of label and segmentation, from 1.
        colours: their colours, `#rrggbb`.
    """

    name: str
    scores: str
    picture: str
    volumes: Mapping[str, str]
    centre: Sequence[float]
    names: Sequence[str]
    colours: Sequence[str]


@dataclass(frozen=True)
class Cases:
    """Cases to look at, one below the other."""

    views: Sequence[CaseView]


Part = Lines | Grid | Picture | Cases


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Args:
        title: the heading.
        parts: what stands below it.
    """

    title: str
    parts: Sequence[Part]

    @property
    def identifier(self) -> str:
        """Its address within the page."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Page:
    """The page.

    Args:
        title: of the page.
        about: a line below the title: what this is about, and when.
        answer: the result, in a few sentences.
        sections: from top to bottom; those without a part are left out.
    """

    title: str
    about: str
    answer: Sequence[str]
    sections: Sequence[Section]

    def save(self, path: Path) -> None:
        """Writes the page as one HTML file.

        Raises:
            OutputError: it cannot be written.
        """
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_html(), encoding="utf-8")

    def to_html(self) -> str:
        """The page as HTML."""
        environment = Environment(
            loader=PackageLoader("hsf_finetune.report", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_show_controls,
        )
        sections = [section for section in self.sections if section.parts]
        has_cases = any(isinstance(part, Cases) for s in sections for part in s.parts)
        return environment.get_template("page.html.j2").render(
            page=self,
            sections=sections,
            version=__version__,
            kind_of=lambda part: type(part).__name__,
            style=Markup(_resource("page.css")),
            script=Markup(_resource("viewer.js")) if has_cases else "",
            viewer=Markup(_viewer()) if has_cases else "",
        )


def _show_controls(value: Any) -> Any:
    return show_controls(value) if type(value) is str else value


def _resource(name: str) -> str:
    return (files("hsf_finetune.report") / name).read_text(encoding="utf-8")


def _viewer() -> str:
    packed = (files("hsf_finetune.report") / VIEWER).read_bytes()
    # An end tag or a comment inside the script would end it, or hide its end.
    text = gzip.decompress(packed).decode()
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
