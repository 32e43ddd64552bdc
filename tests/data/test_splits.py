"""Splits: by subject, seeded, never an empty side, and readable again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.splits import (
    SIDES,
    Split,
    first_fold,
    fold_count,
    fold_settings,
    split_cases,
)
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.system.errors import ConfigError, DataError
from tests.data.writing import PROTOCOL
from tests.data.writing import minimal_settings as settings

counts = st.integers(2, 30)
ratios = st.floats(0, 1, exclude_min=True)
seeds = st.integers(0, 2**32)


def cases(subjects: int, each: int = 2) -> list[Case]:
    """Cases named as a run names those of the decathlon's hippocampus."""
    ref = VolumeRef(Path("x.nii.gz"))
    return [
        Case(
            f"msd__hippocampus_{s:03}_{n}", f"msd/hippocampus_{s:03}", "msd", (ref,), ref, PROTOCOL
        )
        for s in range(subjects)
        for n in range(each)
    ]


def people(side: tuple[Case, ...]) -> set[str]:
    return {case.subject for case in side}


def check(split: Split, every: list[Case]) -> None:
    """No empty side, nobody on two sides, nobody left out."""
    assert split.train
    assert split.validation
    assert split.held_out
    assert not people(split.train) & people(split.validation)
    assert {*split.train, *split.validation} == set(every)
    assert len(split.train) + len(split.validation) == len(every)


@given(counts, ratios, seeds)
def test_a_split_by_ratio_keeps_subjects_whole_and_sides_filled(
    n: int, ratio: float, seed: int
) -> None:
    every = cases(n)
    split = split_cases(every, settings(train_ratio=ratio), seed)
    check(split, every)
    assert split == split_cases(every[::-1][::-1], settings(train_ratio=ratio), seed)
    wanted = min(max(n * (1 - ratio), 1), n - 1)
    assert abs(len(people(split.validation)) - wanted) <= 0.5 + 1e-9


@given(counts, ratios, seeds)
def test_the_order_in_which_cases_were_found_does_not_matter(
    n: int, ratio: float, seed: int
) -> None:
    one = split_cases(cases(n), settings(train_ratio=ratio), seed)
    other = split_cases(cases(n)[::-1], settings(train_ratio=ratio), seed)
    assert people(one.validation) == people(other.validation)


def test_seeds_choose_other_subjects() -> None:
    chosen = {
        frozenset(people(split_cases(cases(20), settings(train_ratio=0.5), seed).validation))
        for seed in range(10)
    }
    assert len(chosen) == 10


@given(counts, st.integers(2, 12), seeds)
def test_folds_partition_the_subjects(n: int, folds: int, seed: int) -> None:
    every = cases(n)
    count = min(folds, n)
    splits = [split_cases(every, settings(folds=folds, fold=f), seed) for f in range(count)]
    for split in splits:
        check(split, every)
    validating = [subject for split in splits for subject in people(split.validation)]
    assert sorted(validating) == sorted(people(tuple(every)))
    sizes = [len(people(split.validation)) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(ConfigError, match=f"0 to {count - 1}"):
        split_cases(every, settings(folds=folds, fold=count), seed)


def test_one_subject_cannot_do_both() -> None:
    with pytest.raises(DataError, match="one subject cannot both") as caught:
        split_cases(cases(1), settings(), 0)
    assert "train_on_all" in str(caught.value)


def test_few_subjects_are_offered_folds() -> None:
    assert "datasets.fold=all" in split_cases(cases(7), settings(fold=None), 0).how
    assert "datasets.fold=all" not in split_cases(cases(8), settings(fold=None), 0).how


@given(counts, ratios, st.integers(2, 12), st.integers(0, 31), seeds)
def test_by_default_few_subjects_are_folded_and_every_one_validates_once(
    n: int, ratio: float, folds: int, few: int, seed: int
) -> None:
    every = cases(n)
    given = settings(train_ratio=ratio, folds=folds, few_subjects=few)
    count = fold_count(every, given)
    assert (count is None) == (n >= few)
    assert fold_count(every, given.model_copy(update={"fold": "all"})) == min(folds, n)
    assert fold_count(every, given.model_copy(update={"fold": None})) is None
    folds_of = [fold_settings(given, k, count) for k in range(count or 0)]
    assert first_fold(every, given) == (folds_of[0] if count else given)
    splits = [split_cases(every, one, seed) for one in folds_of or [given]]
    for split in splits:
        check(split, every)
    if count:
        assert sorted(s for split in splits for s in people(split.validation)) == sorted(
            people(tuple(every))
        )


@pytest.mark.parametrize(
    "given_split",
    [{"train_on_all": True}, {"split_file": "s.json"}, {"train_val_test_idx": [[0], [2]]}],
)
def test_a_split_that_is_given_is_not_folded(given_split: dict[str, Any]) -> None:
    assert fold_count(cases(3), settings(**given_split)) is None


def test_training_on_all_is_flagged_and_read_back(tmp_path: Path) -> None:
    every = cases(3)
    split = split_cases(every, settings(train_on_all=True), 0)
    assert split.train == split.validation == tuple(every)
    assert not split.held_out
    assert "not held out" in split.how
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(split.to_dict()))
    again = split_cases(every, settings(split_file=str(path)), 1)
    assert (again.train, again.validation, again.held_out) == (*[tuple(every)] * 2, False)


def test_one_subject_may_train_on_all() -> None:
    assert len(split_cases(cases(1), settings(train_on_all=True), 0).train) == 2


@given(n=counts, ratio=ratios, seed=seeds)
def test_the_file_of_a_run_gives_its_split_back(
    tmp_path_factory: pytest.TempPathFactory, n: int, ratio: float, seed: int
) -> None:
    every = cases(n)
    split = split_cases(every, settings(train_ratio=ratio), seed)
    path = tmp_path_factory.getbasetemp() / "splits.json"
    path.write_text(json.dumps(split.to_dict()))
    again = split_cases(every, settings(split_file=str(path)), seed + 1)
    assert [again.side(side) for side in SIDES] == [split.side(side) for side in SIDES]
    assert again.held_out


@pytest.mark.parametrize("name", ["hippocampus_{:03}", "msd/hippocampus_{:03}"])
def test_a_file_may_name_subjects(tmp_path: Path, name: str) -> None:
    sides = {"train": [0, 1], "validation": [2], "test": [3], "extra": [9]}
    path = tmp_path / "split.json"
    path.write_text(json.dumps({k: [name.format(n) for n in v] for k, v in sides.items()}))
    split = split_cases(cases(5), settings(split_file=str(path)), 0)
    for side in SIDES:
        assert people(split.side(side)) == {f"msd/hippocampus_{n:03}" for n in sides[side]}
        assert len(split.side(side)) == 2 * len(sides[side])


ONE, TWO, THREE = (f"hippocampus_{n:03}" for n in range(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "cannot be read"),
        ("[]", "needs the keys train and validation"),
        ({"train": [ONE]}, "needs the keys train and validation"),
        ({"train": [ONE], "validation": []}, "no case in validation"),
        ({"train": [ONE], "validation": None}, "no case in validation"),
        ({"train": [ONE], "validation": ONE}, "not a list of names"),
        ({"train": [[ONE]], "validation": [TWO]}, "not a list of names"),
        ({"train": [ONE], "validation": [7]}, "not a list of names"),
        ({"train": [ONE], "validation": ["nobody"]}, "nobody"),
        ({"train": [ONE, TWO], "validation": [TWO]}, "both in train and in validation"),
        ({"train": [ONE], "validation": [TWO], "test": [ONE]}, "both in train and in test"),
        (
            {"train": [f"msd__{ONE}_0"], "validation": [f"msd__{ONE}_1"]},
            "subject 'msd/hippocampus_000' is both",
        ),
    ],
)
def test_files_that_are_no_split_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        split_cases(cases(3), settings(split_file=str(path)), 0)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json"):
        split_cases(cases(3), settings(split_file=str(tmp_path / "none.json")), 0)


def test_case_numbers_name_the_sides() -> None:
    every = cases(4)
    split = split_cases(every, settings(train_val_test_idx=[[0, 1, 1], [2], [6]]), 0)
    assert split.train == tuple(every[:2])
    assert split.validation == (every[2],)
    assert split.test == (every[6],)
    two = split_cases(every, settings(train_val_test_idx=[[0], [2]]), 0)
    assert two.test == ()


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0], [1]], "both in train and in validation"),
        ([[0, 2], [2, 4]], "both in train and in validation"),
        ([[0], [99]], "cases that do not exist"),
        ([[0], [-1]], "cases that do not exist"),
        ([[], [2]], "no case in train"),
    ],
)
def test_impossible_case_numbers_are_refused(indices: list[list[int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_cases(cases(4), settings(train_val_test_idx=indices), 0)
