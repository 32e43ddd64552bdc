"""A run's JSON file that is missing, damaged or incomplete is refused with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.system.errors import DataError
from hsf_finetune.system.read_json import read_json

SHAPE = {"how": str, "train": [str], "folds": [{"name": str}], "best": {"epoch": int}}
WHOLE = '{"how": "x", "train": ["a"], "folds": [{"name": "y"}], "best": {"epoch": 1}, "more": null}'


def test_what_the_run_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(WHOLE)
    assert read_json(tmp_path / "a.json", SHAPE)["best"] == {"epoch": 1}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "no such file"),
        ("", "Expecting value"),
        (WHOLE[:20], "delimiter"),
        ("[" * 100_000, "recursion"),
        ("[]", "the file is no object"),
        ("{}", "no 'how'"),
        (WHOLE.replace('"x"', "3"), "how is 3"),
        (WHOLE.replace('["a"]', '"a"'), "train is no list"),
        (WHOLE.replace('"a"', "null"), "train[0] is null"),
        (WHOLE.replace('{"name": "y"}', "{}"), "no 'name' in folds[0]"),
        (WHOLE.replace('"epoch"', '"step"'), "no 'epoch' in best"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str | None, found: str) -> None:
    file = tmp_path / "a.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_json(file, SHAPE)
    assert caught.value.file == file
    assert found in str(caught.value.found)
    assert caught.value.fix
