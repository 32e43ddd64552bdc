"""The page: what may stand in it, and that it needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.text import Text

from hsf_finetune.report.page import Cases, CaseView, Grid, Lines, Page, Picture, Section
from hsf_finetune.system.console import TitledTable

HOSTILE = "<script>alert(1)</script>\x1b[31m&\u202e"


def page_of(*parts: object) -> str:
    return Page("title", "about", ["answer"], [Section("A section", parts)]).to_html()


@pytest.mark.parametrize(
    "part",
    [
        Lines([HOSTILE]),
        Lines([HOSTILE], "code"),
        Lines([HOSTILE], "list"),
        Grid([HOSTILE], [[HOSTILE]], title=HOSTILE, note=HOSTILE),
        Picture(Figure(), HOSTILE, HOSTILE),
        Cases([CaseView(HOSTILE, HOSTILE, "", {}, [], [HOSTILE], ["#000000"])]),
    ],
)
def test_text_stays_text(part: object) -> None:
    html = page_of(part)
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_table_of_the_terminal_keeps_every_cell() -> None:
    table = TitledTable("above", "below")
    table.add_column("class")
    table.add_column("Dice", justify="right")
    table.add_row(Text("CA1"), Text("0.842 [0.811, 0.868]"))
    grid = Grid.from_rich(table)
    assert (grid.header, grid.rows) == (["class", "Dice"], [("CA1", "0.842 [0.811, 0.868]")])
    assert (grid.title, grid.note, grid.numeric) == ("above", "below", [False, True])


def test_names_inside_pictures_are_unique() -> None:
    figures = [Figure(), Figure()]
    for number, figure in enumerate(figures):
        figure.subplots().plot([0, number + 1])
    found = re.findall(r'\bid="([^"]+)"', page_of(*(Picture(one, "text") for one in figures)))
    assert len(found) == len(set(found))


def test_sections_without_content_are_left_out() -> None:
    assert "A section" not in page_of()


def test_file_requests_nothing(tmp_path: Path) -> None:
    case = CaseView("case", "", "", {}, [], [], [])
    html = page_of(Cases([case]), Picture(Figure(), "text"))
    markup = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href|srcset)="(?!data:|#)[^"]*"', markup)
    assert "default-src 'none'" in markup
