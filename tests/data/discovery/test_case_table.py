"""Cases that a table lists: the same as by patterns, and errors that name line and column."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hsf_finetune.config.settings import DatasetSettings, DatasetsSettings
from hsf_finetune.data.discovery.case_table import read_case_table
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.splits import fold_count, split_cases
from hsf_finetune.system.atomic_files import plain_cell
from hsf_finetune.system.errors import ConfigError, UserError
from tests.data.writing import NAMES, blobs, hdf5, nifti, pair, scan, several

HEADER = "image,label"
PEOPLE = ("a", "b", "c", "d")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Four cases below lab/scans; tables lie in lab itself."""
    for name in PEOPLE:
        pair(tmp_path / "lab" / "scans", f"{name}_im.nii.gz", f"{name}_seg.nii.gz")
    return tmp_path / "lab"


def table_of(lab: Path, *lines: str, name: str = "cases.csv") -> DatasetsSettings:
    (lab / name).write_text("\n".join(lines), encoding="utf-8")
    return several(lab, lab={"path": ".", "table": name})


def rows(*more: str) -> list[str]:
    """A line per person; `more` are their further cells."""
    cells = more or ("",) * 4
    return [
        f"scans/{p}_im.nii.gz,scans/{p}_seg.nii.gz{',' if c else ''}{c}"
        for p, c in zip(PEOPLE, cells, strict=True)
    ]


def plain(cohort: Cohort) -> set[tuple[object, ...]]:
    return {(case.name, case.subject, case.images, case.label) for case in cohort.cases}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_a_table_gives_what_patterns_give(lab: Path, mark: str, start: str) -> None:
    text = [line.replace(",", mark) for line in ("Image, LABEL ,age", *rows("3", "4", "5", "6"))]
    listed = discover(table_of(lab, start + text[0], *text[1:], "", name="cases.tsv"))
    patterns = {"t2": {"mri": "scans/*_im.nii.gz", "label": "scans/*_seg.nii.gz"}}
    assert plain(listed) == plain(discover(several(lab, lab={"path": ".", "patterns": patterns})))


def test_subjects_channels_keys_and_files_elsewhere(lab: Path, tmp_path: Path) -> None:
    far = hdf5(tmp_path / "far" / "e.h5", {"x": scan(), "y": scan(1), "seg": blobs()})
    nifti(lab / "scans" / "a_t1.nii.gz")
    cohort = discover(
        table_of(
            lab,
            "image,image2,label,subject",
            "scans/a_im.nii.gz,scans/a_t1.nii.gz,scans/a_seg.nii.gz,Ann",
            f"{far}:x,{far}:y,{far}:seg,Eve",
        )
    )
    assert cohort.channels == 2
    assert {case.subject for case in cohort.cases} == {"Ann", "Eve"}
    eve = next(case for case in cohort.cases if case.subject == "Eve")
    assert [ref.key for ref in (*eve.images, eve.label)] == ["x", "y", "seg"]
    statuses = {entry.path.name: (entry.status, entry.reason) for entry in cohort.ledger()}
    assert statuses["b_im.nii.gz"] == ("unused", "the table of 'lab' does not list it")


def test_excluded_files_leave_their_line_out(lab: Path) -> None:
    (lab / "cases.csv").write_text("\n".join([HEADER, *rows()]))
    described = {"path": ".", "table": "cases.csv", "exclude": ["scans/b_seg.nii.gz"]}
    cohort = discover(several(lab, lab=described))
    assert [case.images[0].path.name[0] for case in cohort.cases] == ["a", "c", "d"]
    assert {e.path.name[0] for e in cohort.ledger() if e.status == "excluded"} == {"b"}


def test_the_split_column_counts_unless_something_else_is_asked_for(lab: Path) -> None:
    settings = table_of(lab, f"{HEADER},split", *rows("train", "Training", "val", "test"))
    cases = discover(settings).cases
    split = split_cases(cases, settings, 0)
    sides = [[case.subject[0] for case in split.side(s)] for s in ("train", "validation", "test")]
    assert sides == [["a", "b"], ["c"], ["d"]]
    assert fold_count(cases, settings) is None
    drawn = split_cases(cases, settings.model_copy(update={"fold": None}), 0)
    assert not drawn.test
    assert len(drawn.train) == 3
    assert fold_count(cases, settings.model_copy(update={"fold": "all"})) == 4


def test_an_empty_split_column_is_none(lab: Path) -> None:
    settings = table_of(lab, "image,label,split", *rows())
    assert all(case.side is None for case in discover(settings).cases)


def test_one_person_on_two_sides_is_an_error(lab: Path) -> None:
    cells = ("p,train", "p,val", "q,train", "q,train")
    settings = table_of(lab, f"{HEADER},subject,split", *rows(*cells))
    with pytest.raises(ConfigError, match="subject 'p' is both in train and in validation"):
        split_cases(discover(settings).cases, settings, 0)


def test_a_split_for_some_datasets_only_is_an_error(lab: Path) -> None:
    for name in ("e", "f"):
        pair(lab / "more", f"{name}_im.nii.gz", f"{name}_seg.nii.gz")
    (lab / "cases.csv").write_text(
        "\n".join([f"{HEADER},split", *rows("train", "val", "train", "test")])
    )
    patterns = {"t2": {"mri": "*_im.nii.gz", "label": "*_seg.nii.gz"}}
    settings = several(
        lab,
        lab={"path": ".", "table": "cases.csv"},
        more={"path": "more", "patterns": patterns},
    )
    with pytest.raises(ConfigError, match="'lab' has a column split, and dataset 'more' has none"):
        split_cases(discover(settings).cases, settings, 0)


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        ([], ["no column 'image'", "an empty file"]),
        ([HEADER], ["lists no case"]),
        (["image,lable", *rows()], ["no column 'label'", "did you mean 'label' by 'lable'"]),
        ([f"{HEADER},subjects", *rows(*"1234")], ["did you mean 'subject' by 'subjects'"]),
        (["image,image,label"], ["'image' twice"]),
        (["image,image3,label"], ["not image, image2"]),
        ([HEADER, *rows(*"1234")], ["line 2", "more cells than the header"]),
        (
            [HEADER, "scans/a_im.nii.gz,", "scans/z.nii.gz,scans/b_seg.nii.gz", "x.png,y.nii"],
            [
                "line 2, column label",
                "the label is missing",
                "line 3, column image",
                "no such file",
                "line 4, column image",
                "not a volume",
                "line 4, column label",
            ],
        ),
        ([HEADER, rows()[0], "", rows()[0]], ["line 4, column image", "twice: line 2"]),
        ([HEADER, rows()[0], "scans/b_im.nii.gz,scans/a_seg.nii.gz"], ["have the same label"]),
        ([f"{HEADER},subject", *rows("p", "q", "", "r")], ["line 4, column subject", "missing"]),
        (
            [f"{HEADER},split", *rows("train", "vall", "", "test")],
            [
                "line 3, column split",
                "vall",
                "line 4, column split",
                "side of the split is missing",
            ],
        ),
    ],
)
def test_errors_name_line_and_column(lab: Path, lines: list[str], messages: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        discover(table_of(lab, *lines))
    for message in (*messages, "cases.csv" if "same label" not in messages[0] else ""):
        assert message in str(caught.value)


def test_a_missing_table_and_two_rules_for_subjects(lab: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read(.|\n)*No such file"):
        discover(several(lab, lab={"path": ".", "table": "none.csv"}))
    (lab / "cases.csv").write_text("\n".join([f"{HEADER},subject", *rows(*"1234")]))
    with pytest.raises(UserError, match="gives its subjects twice"):
        discover(several(lab, lab={"path": ".", "table": "cases.csv", "subject": "(.)_im"}))


@pytest.mark.parametrize(
    "given_keys",
    [{}, {"patterns": {}}, {"table": "a.csv", "patterns": {"t": {"mri": "*", "label": "x"}}}],
)
def test_either_patterns_or_a_table(given_keys: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="give either patterns"):
        DatasetSettings.model_validate({"path": ".", "labels_names": NAMES, **given_keys})


cell = st.text("ab ,;\"'/.\t\u00e9", max_size=8)


@given(st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=6), st.sampled_from(",;\t"))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_cells_are_read_back(tmp_path: Path, cells: list[tuple[str, str, str]], mark: str) -> None:
    import csv

    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=mark).writerows([("image", "label", "subject"), *cells])
    found = [tuple(row.cells.values()) for row in read_case_table(path).rows]
    stripped = [tuple(plain_cell(text.strip()) for text in row) for row in cells]
    assert found == [row for row in stripped if any(row)]


def test_a_table_of_100_000_columns_ends_at_once(lab: Path) -> None:
    wide = ",".join(["image", "label", *(f"label{n}" for n in range(100_000))])
    started = time.monotonic()
    with pytest.raises(UserError, match="100002 cells in line 1"):
        discover(table_of(lab, wide, *rows()))
    assert time.monotonic() - started < 5


def test_a_table_that_is_no_file_is_refused(lab: Path) -> None:
    (lab / "cases.csv").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"the table cannot be read[\s\S]*MiB"):
        discover(several(lab, lab={"path": ".", "table": "cases.csv"}))


@pytest.mark.parametrize("text", ["x" * 5000 + ".nii.gz", "~nobody-of-this-name/a.nii.gz"])
def test_a_cell_that_cannot_be_a_path_is_named(lab: Path, text: str) -> None:
    with pytest.raises(UserError, match="no path of a file") as caught:
        discover(table_of(lab, HEADER, *rows(), f"{text},scans/a_seg.nii.gz"))
    assert "line 6, column image" in str(caught.value)


def test_the_apostrophe_before_a_formula_is_not_part_of_a_cell(lab: Path) -> None:
    pair(lab / "=x", "im.nii.gz", "seg.nii.gz")
    line = "'=x/im.nii.gz,'=x/seg.nii.gz"
    cases = discover(table_of(lab, HEADER, *rows(), line)).cases
    assert any(case.label.path.parent.name == "=x" for case in cases)
