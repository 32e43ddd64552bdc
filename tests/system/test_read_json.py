"""A run's JSON file that is missing, damaged or incomplete is refused with its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hsf_finetune.experiment.pseudo_labels import label_scans, pseudo_values
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.planning.source_model import CLASS_GROUPS, read_class_groups
from hsf_finetune.report.methods import describe_selftrain
from hsf_finetune.system.errors import DataError
from hsf_finetune.system.read_json import read_json, read_json_list

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


def test_a_list_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"name": "x"}]')
    assert read_json_list(tmp_path / "a.json", {"name": str}) == [{"name": "x"}]
    with pytest.raises(DataError, match=r"no 'path' in \[0\]"):
        read_json_list(tmp_path / "a.json", {"path": str})


def no_teacher() -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (CLASS_GROUPS, lambda run: read_class_groups(run / CLASS_GROUPS)),
        ("unlabelled.json", lambda run: [*describe_selftrain([run])]),
        ("labels.json", lambda run: label_scans(run, (), no_teacher, pseudo_values([], {}), 0.1)),
        ("transfer.json", lambda run: TrainedModel.read(run, "x")),
    ],
)
def test_every_reader_names_a_damaged_file(
    name: str, read: Callable[[Path], object], source_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(source_run, run)
    (run / name).write_text('{"classes": [')
    with pytest.raises(DataError, match="missing, damaged or incomplete") as caught:
        read(run)
    assert caught.value.file == run / name


def test_groups_of_classes_are_read_as_versions_wrote_them(tmp_path: Path) -> None:
    file = tmp_path / CLASS_GROUPS
    file.write_text('{"classes": ["a"], "groups": [{"name": "a", "there": [0], "here": [0, 1]}]}')
    assert read_class_groups(file)[1][0].target == (0, 1)
    file.write_text('{"classes": ["a"], "groups": [{"name": "a", "source": [0], "here": [0, 1]}]}')
    with pytest.raises(DataError, match=r"no 'target' in groups\[0\]"):
        read_class_groups(file)
