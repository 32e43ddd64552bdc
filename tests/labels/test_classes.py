"""Label maps: values, rows, sets of classes, and the values written back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.labels.classes import (
    BACKGROUND,
    BACKGROUND_ROW,
    ClassSpace,
    LabelMap,
    ordered_union,
)
from hsf_finetune.system.errors import ConfigError

SPACE = ClassSpace((BACKGROUND, "DG", "CA1", "CA2", "CA3"))

sets = st.dictionaries(
    st.integers(-300, 70000).filter(bool),
    st.sets(st.sampled_from(SPACE.names), min_size=1),
    max_size=20,
)


@pytest.mark.parametrize("names", [(BACKGROUND,), ("DG", "CA1"), (BACKGROUND, "DG", "DG")])
def test_a_class_space_needs_the_background_and_distinct_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        ClassSpace(names)


def test_the_index_of_a_class_is_its_channel() -> None:
    assert [SPACE.index(name) for name in SPACE.names] == list(range(len(SPACE)))
    with pytest.raises(ConfigError, match=r"CA4.*\n.*CA3"):
        SPACE.index("CA4")


@given(sets)
def test_rows_and_matrix_give_each_value_its_classes(given_sets: dict[int, set[str]]) -> None:
    labels = LabelMap.from_sets(SPACE, given_sets)
    everything = {0: {BACKGROUND}} | given_sets
    raw = np.array([list(everything)], dtype=np.int64)
    rows = labels.rows(raw)
    assert rows.shape == raw.shape
    assert rows.dtype == np.uint8
    assert labels.count_unknown(raw) == {}
    for value, row in zip(raw.ravel(), rows.ravel(), strict=True):
        allowed = {SPACE.names[c] for c in np.flatnonzero(labels.matrix[row])}
        assert allowed == everything[int(value)]
    assert labels.rows(np.array([0]))[0] == BACKGROUND_ROW
    assert len(np.unique(labels.matrix, axis=0)) == len(labels.matrix), "a set has two rows"


@given(sets, st.lists(st.integers(-400, 70100), min_size=1))
def test_unknown_values_are_counted(given_sets: dict[int, set[str]], raw: list[int]) -> None:
    unknown = LabelMap.from_sets(SPACE, given_sets).count_unknown(np.array(raw, dtype=np.int64))
    strangers = [value for value in raw if value not in given_sets and value != 0]
    assert unknown == {value: strangers.count(value) for value in strangers}


@given(sets)
def test_written_values_never_mean_something_else(given_sets: dict[int, set[str]]) -> None:
    labels = LabelMap.from_sets(SPACE, given_sets)
    written = labels.values_to_write()
    assert list(written) == list(SPACE.names)
    assert len(set(written.values())) == len(written)
    meaning = dict(labels.sets)
    for name, value in written.items():
        alone = [v for v, names in meaning.items() if names == {name}]
        assert meaning.get(value, {name}) == {name}
        assert (value in alone) == bool(alone)
        assert value >= 0 or all(v < 0 for v in alone)


def test_the_background_is_written_as_0_whatever_else_is_background() -> None:
    written = LabelMap.from_sets(SPACE, {-5: [BACKGROUND], 9: [BACKGROUND], -2: ["DG"], 4: ["DG"]})
    assert written.values_to_write()[BACKGROUND] == 0
    assert written.values_to_write()["DG"] == 4
    assert written.values_to_write()["CA1"] == 10


def test_rows_say_foreground_something_or_nothing() -> None:
    labels = LabelMap.from_sets(
        SPACE, {1: ["DG"], 2: ["CA2", "CA3"], 8: [BACKGROUND], 9: SPACE.names}
    )
    assert labels.foreground_rows.tolist() == [False, True, True, False]
    assert labels.informative_rows.tolist() == [True, True, True, False]


def test_rows_are_called_as_the_dataset_calls_them() -> None:
    merged = frozenset({"CA2", "CA3"})
    given = {1: ["DG"], 2: merged, 3: ["CA3", "DG"]}
    labels = LabelMap.from_sets(SPACE, given, {merged: "CA2/3"})
    assert labels.row_names == (BACKGROUND, "DG", "CA2/3", "DG+CA3")


@pytest.mark.parametrize(
    "wrong",
    [
        {1: ["DG"], 2: []},
        {1: ["CA4"]},
        {0: ["DG"]},
        {v: ["DG"] for v in range(300)},
        {1: ["DG"], 2**64 - 1: [BACKGROUND, "DG"]},
    ],
)
def test_impossible_maps_are_refused(wrong: dict[int, list[str]]) -> None:
    with pytest.raises(ConfigError):
        LabelMap.from_sets(SPACE, wrong)


def test_value_0_may_be_unsure_as_long_as_it_may_be_background() -> None:
    labels = LabelMap.from_sets(SPACE, {0: SPACE.names, 1: ["DG"]})
    assert labels.matrix[BACKGROUND_ROW].all()
    assert labels.values_to_write()[BACKGROUND] == 0
    assert (
        LabelMap.from_sets(SPACE, {0: SPACE.names, 7: [BACKGROUND]}).values_to_write()[BACKGROUND]
        == 7
    )


def test_maps_compare_and_hash_by_content() -> None:
    first, second = (LabelMap.from_sets(SPACE, {1: ["DG"], 2: ["CA1"]}) for _ in range(2))
    assert first == second
    assert len({first, second}) == 1


@given(st.lists(st.lists(st.sampled_from("abcdef"))))
def test_the_union_keeps_the_order_of_first_appearance(groups: list[list[str]]) -> None:
    flat = [name for group in groups for name in group]
    union = ordered_union(groups)
    assert sorted(union) == sorted(set(flat))
    assert list(union) == sorted(union, key=flat.index)
