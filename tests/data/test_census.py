"""The census counts what supervises each class, and says what is missing or doubtful."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hsf_finetune.data.census import (
    CaseVoxels,
    census_table,
    census_warnings,
    check_census,
    take_census,
    write_census,
)
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.loading.sample_store import SampleStore
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace, LabelMap
from hsf_finetune.system.errors import DataError
from tests.data.writing import case, minimal_settings

SPACE = ClassSpace((BACKGROUND, "A", "B", "C"))
FINE = LabelMap.from_sets(SPACE, {1: ["A"], 2: ["B"], 3: ["C"]})
MERGED = LabelMap.from_sets(SPACE, {0: [BACKGROUND, "C"], 1: ["A", "B"], 9: SPACE.names})


def counted(dataset: str, protocol: LabelMap, *voxels: int) -> CaseVoxels:
    ref = VolumeRef(Path("x.nii.gz"))
    return Case("c", "p", dataset, (ref,), ref, protocol), np.array(voxels)


CASES = [
    counted("fine", FINE, 1000, 10, 20, 0),
    counted("fine", FINE, 1000, 5, 0, 0),
    counted("merged", MERGED, 500, 1500, 70),
]


def test_voxels_count_exactly_through_sets_or_not_at_all() -> None:
    census = take_census(CASES, SPACE)
    found = {
        (row.dataset, row.class_name): (
            row.cases, row.exact_cases, row.exact_voxels, row.set_cases, row.set_voxels
        )
        for row in census.rows
    }  # fmt: skip
    assert found == {
        ("fine", BACKGROUND): (2, 2, 2000, 0, 0),
        ("fine", "A"): (2, 2, 15, 0, 0),
        ("fine", "B"): (2, 1, 20, 0, 0),
        ("fine", "C"): (2, 0, 0, 0, 0),
        ("merged", BACKGROUND): (1, 0, 0, 1, 500),
        ("merged", "A"): (1, 0, 0, 1, 1500),
        ("merged", "B"): (1, 0, 0, 1, 1500),
        ("merged", "C"): (1, 0, 0, 0, 0),
    }


def test_a_class_without_supervision_is_refused_unless_allowed() -> None:
    census = take_census(CASES, SPACE)
    with pytest.raises(DataError, match=r"shows C:(?s:.*)datasets.allow_unsupervised=\[C\]"):
        check_census(census, [])
    check_census(census, ["C"])
    check_census(take_census([*CASES, counted("fine", FINE, 1, 0, 0, 1)], SPACE), [])


def test_few_cases_and_sets_alone_are_worth_a_word() -> None:
    few, vague = census_warnings(take_census([*CASES, *CASES[2:]], SPACE)), None
    assert few == []
    few = census_warnings(take_census(CASES, SPACE))
    assert few == ["few training cases show B (2)"]
    (vague,) = census_warnings(take_census(CASES[2:] * 3, SPACE))
    assert vague.startswith("only sets show background, A, B:")


def test_the_table_and_the_file_say_it(tmp_path: Path) -> None:
    census = take_census(CASES, SPACE)
    console = Console(file=io.StringIO(), width=100)
    console.print(census_table(census))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["A", "2", "(15)", "~1", "(1.5k)"] in lines
    assert ["C", "-", "-"] in lines
    write_census(tmp_path / "census.csv", {"train": census, "validation": census})
    with (tmp_path / "census.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert rows[9] | {"side": "train"} == rows[1]
    assert (rows[1]["class_name"], rows[1]["exact_voxels"]) == ("A", "15")


def hiding(**drawn: list[str]) -> LabelMap:
    """A protocol of two values in which the other classes are unannotated."""
    (first, second), hidden = drawn["draws"], drawn["hides"]
    return LabelMap.from_sets(SPACE, {0: [BACKGROUND, *hidden], 1: [first], 2: [second]})


@pytest.mark.parametrize(
    ("protocols", "apart"),
    [
        (
            [hiding(draws=["A", "B"], hides=["C"]), hiding(draws=["A", "C"], hides=["B"])],
            ["B", "C"],
        ),
        ([hiding(draws=["A", "B"], hides=["C"]), hiding(draws=["A", "C"], hides=[])], None),
        ([hiding(draws=["A", "B"], hides=["C"]), FINE], None),
        ([hiding(draws=["A", "B"], hides=["C"])], None),
    ],
)
def test_classes_that_no_dataset_draws_together_are_said(
    protocols: list[LabelMap], apart: list[str] | None
) -> None:
    cases = [
        counted(f"d{n}", protocol, 100, *([9] * (len(protocol.row_sets) - 1)))
        for n, protocol in enumerate(protocols)
        for _ in range(3)
    ]
    found = [line for line in census_warnings(take_census(cases, SPACE)) if "beside" in line]
    assert len(found) == bool(apart)
    if apart:
        assert f"{apart[0]} beside {apart[1]}" in found[0]
        assert "validation cannot see it" in found[0]


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
def test_the_store_counts_while_it_reads(tmp_path: Path, cache: str) -> None:
    more = {"cache": cache, "cache_dir": str(tmp_path / "cache")}
    cases = [case(tmp_path, "a"), case(tmp_path, "b", 1, (12, 9, 8))]
    ignoring = LabelMap.from_sets(
        cases[1].protocol.space, {1: ["DG", "CA1"], 2: ["CA1"], 7: ["DG"]}
    )
    cases[1] = replace(cases[1], protocol=ignoring)
    store = SampleStore(cases, minimal_settings(**more))
    store.prepare()
    for path in tmp_path.glob("*.nii.gz"):
        path.unlink()
    for number, one in enumerate(cases):
        voxels = store.places(one).voxels
        assert voxels.tolist()[1:3] == [32, 32]
        assert len(voxels) == len(one.protocol.row_sets)
        assert voxels.sum() == ((10 * 9 * 8), (12 * 9 * 8))[number]
