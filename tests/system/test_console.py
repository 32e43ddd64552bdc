"""What is printed cannot command the terminal."""

from __future__ import annotations

import pytest
from rich.text import Text

from hsf_finetune.system.console import TitledTable, console, format_size, say, text_of

NAMES = ["\x1b[2Jgone", "\x9b31m", "\x1b]0;title\x07", "\u202egz.iin", "\udce9.nii"]


@pytest.mark.parametrize("name", NAMES)
def test_control_characters_of_a_name_are_printed_as_escapes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = TitledTable(name, name)
    table.add_column(Text(name))
    table.add_row(name, Text(name))
    say(f"file: {name}")
    console.print(table)
    for text in (capsys.readouterr().out, text_of(table)):
        assert not {c for c in text if not c.isprintable()} - {"\n"}
        assert "\\" in text


def test_other_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("sub-01 [b] é 漢 C:\\data\n\ttab")
    assert capsys.readouterr().out == "sub-01 [b] é 漢 C:\\data\n        tab\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.4, "1234"),
        (25.344, "25.3"),
        (0.52, "0.52"),
        (1e6, "1000000"),
        (0, "0"),
        (1.9199e-12, "1.92e-12"),
        (-8e-6, "-8e-06"),
    ],
)
def test_a_size_of_any_scale_keeps_its_digits(value: float, text: str) -> None:
    assert format_size(value) == text


def test_a_size_may_have_more_digits_and_a_sign() -> None:
    assert format_size(63209.472, 7) == "63209.47"
    assert format_size(0.52, sign="+") == "+0.52"
