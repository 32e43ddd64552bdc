"""Post-processing: what each step does, and that only steps are kept by which no case loses."""

from __future__ import annotations

import numpy as np
import pytest

from hsf_finetune.evaluation.fit_postprocessing import LabelledCase, fit_postprocessing
from hsf_finetune.inference.postprocessing import Postprocessing, PostprocessingStep, StepKind

NAMES = ("background", "left", "right")
SINGLE = np.eye(3, dtype=bool)
Volume = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def label() -> Volume:
    """A large piece of each class."""
    made: Volume = np.zeros((20, 16, 12), np.uint8)
    made[2:8, 3:10, 3:9], made[12:18, 3:10, 3:9] = 1, 2
    return made


def with_specks() -> Volume:
    made = label()
    made[0, 0, 0], made[19, 15, 11:], made[4, 5, 5] = 1, 2, 0
    return made


def case(found: Volume, rows: Volume, allowed: np.ndarray = SINGLE) -> LabelledCase:
    return LabelledCase.cut(found, rows, allowed, 2.0)


@pytest.mark.parametrize(
    ("kind", "classes", "size", "changed"),
    [
        ("largest", ("left",), 0, [(0, 0, 0)]),
        ("largest", ("left", "right"), 0, [(0, 0, 0), (19, 15, 11)]),
        ("small", ("right",), 2.0, []),
        ("small", ("right",), 2.1, [(19, 15, 11)]),
        ("holes", ("left",), 0, [(4, 5, 5)]),
        ("holes", ("right",), 0, []),
    ],
)
def test_what_a_step_changes(
    kind: StepKind, classes: tuple[str, ...], size: float, changed: list[tuple[int, int, int]]
) -> None:
    labels = with_specks()
    if len(classes) == 2:
        labels[8:12, 5, 5] = 1  # joined
    before = labels.copy()
    found = PostprocessingStep(kind, classes, size).apply(labels, NAMES, 2.0)
    np.testing.assert_array_equal(labels, before)
    assert [*map(tuple, np.argwhere(found != labels).tolist())] == changed
    assert found.dtype == np.uint8


def test_steps_are_kept_by_which_some_case_gains_and_none_loses() -> None:
    clean, specks = case(label(), label()), case(with_specks(), label())
    steps = fit_postprocessing([clean, specks], NAMES)
    assert [(step.kind, step.classes) for step in steps.steps] == [
        ("largest", ("left",)),
        ("largest", ("right",)),
        ("holes", ("left",)),
    ]
    assert Postprocessing.from_list(steps.to_list()) == steps
    assert Postprocessing.shared([steps, Postprocessing(steps.steps[1:])]).steps == steps.steps[1:]
    two_pieces = label()
    two_pieces[2:8, 14:16] = 1
    kept = fit_postprocessing([specks, case(two_pieces, two_pieces)], NAMES)
    assert ("largest", ("left",)) not in [(step.kind, step.classes) for step in kept.steps]
    assert ("small", ("left",)) in [(step.kind, step.classes) for step in kept.steps]
    assert not fit_postprocessing([clean, clean], NAMES)


def test_sets_of_classes_are_counted_as_sets() -> None:
    allowed = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    rows = (label() > 0).astype(np.uint8)
    rows[0, 0, 0] = 2  # left open
    perfect = case(label(), rows, allowed)
    assert perfect.dice().tolist() == [1.0]
    assert case(with_specks(), rows, allowed).dice()[0] == pytest.approx(1006 / 1008)
