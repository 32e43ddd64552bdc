"""Tables of label names: each form is read back, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsf_finetune.describe.label_names import (
    NameTable,
    best_name_table,
    find_name_tables,
    read_name_table,
)

word = st.text("abcXYZ0189_-/+\u00e4", min_size=1, max_size=12)
phrase = st.lists(word, min_size=1, max_size=3).map(" ".join)
one_word = st.dictionaries(st.integers(0, 20000), word, min_size=1, max_size=8)
phrases = st.dictionaries(st.integers(0, 20000), phrase, min_size=1, max_size=8)
in_a_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


def written(folder: Path, name: str, text: str) -> NameTable | None:
    (folder / name).write_text(text, encoding="utf-8")
    return read_name_table(folder / name)


@given(phrases, st.permutations(["index", "name", "color", "mapping"]))
@in_a_folder
def test_a_bids_table_is_read_back(
    tmp_path: Path, names: dict[int, str], columns: list[str]
) -> None:
    cells = [
        {"index": str(value), "name": name, "color": "#ff00aa", "mapping": "1"}
        for value, name in names.items()
    ]
    lines = [columns, *([row[c] for c in columns] for row in cells)]
    found = written(tmp_path, "dseg.tsv", "\n".join("\t".join(line) for line in lines))
    assert found is not None
    assert found.names == names


@given(one_word, st.integers(0, 255))
@in_a_folder
def test_a_freesurfer_table_is_read_back(
    tmp_path: Path, names: dict[int, str], colour: int
) -> None:
    lines = ["#$Id: FreeSurferColorLUT.txt", "#No. Label Name:   R   G   B   A", ""]
    lines += [f"{v:<8d}{n:<40s} {colour:<4d}{3:<4d}{4:<4d}0" for v, n in names.items()]
    found = written(tmp_path, "LUT.txt", "\n".join(lines))
    assert found is not None
    assert found.names == names
    assert found.kind == "FreeSurfer colour table"


@given(phrases)
@in_a_folder
def test_label_descriptions_of_itk_snap_are_read_back(
    tmp_path: Path, names: dict[int, str]
) -> None:
    lines = ["################", "# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A--"]
    lines += [f'{v:5d}  255  0  12        0.5  1  1    "{n}"' for v, n in names.items()]
    found = written(tmp_path, "snap.label", "\r\n".join(lines))
    assert found is not None
    assert found.names == names
    assert found.kind == "ITK-SNAP label descriptions"


@given(phrases)
@in_a_folder
def test_both_forms_of_dataset_json_are_read_back(tmp_path: Path, names: dict[int, str]) -> None:
    by_value = {"labels": {str(value): name for value, name in names.items()}}
    found = written(tmp_path, "dataset.json", json.dumps(by_value))
    assert found is not None
    assert found.names == names
    by_name = {"labels": {name: value for value, name in names.items()}}
    found = written(tmp_path, "dataset.json", json.dumps(by_name))
    assert found is not None
    assert found.names == {v: n for n, v in by_name["labels"].items() if n != "ignore"}


def test_regions_and_the_ignored_label_of_nnunet(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    found = written(tmp_path, "dataset.json", json.dumps({"labels": labels}))
    assert found is not None
    assert found.ignore == (3,)
    assert found.regions == (("whole", (1, 2)), ("core", (2,)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("participants.tsv", "participant_id\tage\nsub-01\t30\n"),
        ("notes.txt", "1 Some words about 3 4 5 6\nand 7 more\n"),
        ("volumes.txt", "1 2 3\n4 5 6\n"),
        ("dataset.json", '{"labels": ["a", "b"]}'),
        ("dataset.json", "not json"),
        ("dataset.json", "[1]"),
        ("empty.txt", ""),
        ("binary.txt", "\x00\x01\x02"),
        ("dseg.tsv", "index\tname\n\t\n"),
    ],
)
def test_other_files_are_no_tables(tmp_path: Path, name: str, text: str) -> None:
    assert written(tmp_path, name, text) is None


@pytest.mark.parametrize("values", [{1, 2}, {2}, {1, 7}, {99}])
def test_the_table_that_names_most_values_is_taken(tmp_path: Path, values: set[int]) -> None:
    def table(name: str, names: dict[int, str]) -> NameTable:
        return NameTable(tmp_path / name, "", names)

    everything = table("all", {n: f"structure {n}" for n in range(50)})
    own = table("own", {0: "background", 1: "DG", 2: "CA1"})
    best = best_name_table([everything, own], values)
    expected = {(1, 2): own, (2,): own, (1, 7): everything, (99,): None}
    assert best is expected[tuple(sorted(values))]


def test_tables_are_found_below_the_folder_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for place in ("derivatives/manual", ".git", "."):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "dseg.tsv").write_text("index\tname\n1\tDG\n")
    (tmp_path / "sub-01_T1w.json").write_text('{"labels": {"1": "x"}}')
    places = [found.path.relative_to(tmp_path).as_posix() for found in find_name_tables(tmp_path)]
    assert places == ["dseg.tsv", "derivatives/manual/dseg.tsv"]
