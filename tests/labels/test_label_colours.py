"""Colours: those that are given, and a palette for the others."""

from __future__ import annotations

from hsf_finetune.labels.label_colours import label_rows, palette_colour


def test_all_colours_differ_and_given_ones_are_kept() -> None:
    values = {"background": 0, **{f"class {n}": n for n in range(1, 40)}}
    given = {"class 7": palette_colour(0), "class 8": (1, 2, 3)}
    rows = label_rows(values, given)
    assert [row.value for row in rows] == [*range(1, 40)]
    assert rows[6].colour == palette_colour(0)
    assert rows[7].colour == (1, 2, 3)
    assert len({row.colour for row in rows}) == len(rows)
