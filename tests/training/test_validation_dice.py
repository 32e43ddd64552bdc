"""Validation Dice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsf_finetune.evaluation.metrics import ClassScore
from hsf_finetune.evaluation.score_tables import ScoreRow, summarise
from hsf_finetune.labels.classes import ClassSpace, LabelMap
from hsf_finetune.training.validation_dice import (
    case_dice,
    mean_over_cases,
    mean_per_class,
    set_masks,
)

CLASSES = ("background", "A", "B")
SINGLE = torch.eye(3, dtype=torch.bool)


def logits_of(classes: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(classes.long(), 3).permute(3, 0, 1, 2).float() * 20


def test_perfect_prediction_scores_one() -> None:
    rows = torch.randint(3, (4, 4, 4), dtype=torch.uint8)
    assert case_dice(logits_of(rows), rows, SINGLE, CLASSES) == {"A": 1.0, "B": 1.0}


def test_counts_by_hand() -> None:
    truth = torch.zeros(1, 1, 6, dtype=torch.uint8)
    truth[0, 0, :3] = 1
    predicted = torch.zeros(1, 1, 6, dtype=torch.uint8)
    predicted[0, 0, 2:4] = 1
    scores = case_dice(logits_of(predicted), truth, SINGLE, CLASSES)
    assert scores == {"A": pytest.approx(2 * 1 / (3 + 2))}


def test_absent_classes_are_left_out_and_false_positives_are_not() -> None:
    truth = torch.zeros(2, 2, 2, dtype=torch.uint8)
    predicted = truth.clone()
    predicted[0, 0, 0] = 2
    assert case_dice(logits_of(predicted), truth, SINGLE, CLASSES) == {"B": 0.0}


def test_a_merged_set_is_scored_by_summed_probability() -> None:
    # 0.4 + 0.3 for {A, B} beats 0.3 for the background, though A alone is the favourite.
    logits = torch.tensor([0.3, 0.4, 0.3]).log()[:, None, None, None]
    merged = torch.tensor([[1, 0, 0], [0, 1, 1]], dtype=torch.bool)
    rows = torch.ones(1, 1, 1, dtype=torch.uint8)
    assert case_dice(logits, rows, merged, CLASSES) == {"A+B": 1.0}


def test_mean_is_over_the_cases_that_have_a_class() -> None:
    means = mean_per_class([{"A": 1.0}, {"A": 0.5, "B": 0.2}])
    assert means == {"A": 0.75, "B": pytest.approx(0.2)}


def test_the_mean_is_that_of_the_tables() -> None:
    cases = {"a": {"A": 1.0, "B": 0.2}, "b": {"A": 0.5}, "c": {}, "d": {"B": 0.0}}
    rows = [
        ScoreRow(case, case, ClassScore(name, "scored", dice, 1.0, dice, 1.0, 1.0, 0.0))
        for case, found in cases.items()
        for name, dice in found.items()
    ]
    mean = mean_over_cases(list(cases.values()))
    assert mean == pytest.approx((0.6 + 0.5 + 0.0) / 3)
    assert mean == pytest.approx(summarise(rows)[-1].dice.mean)
    assert mean_over_cases([{}]) == 0


def test_two_values_of_one_class_are_one_class() -> None:
    space = ClassSpace(CLASSES)
    protocol = LabelMap.from_sets(space, {1: ["A"], 2: ["A"], 3: ["B"]})
    raw = np.array([[[0, 1, 2, 3]]])
    rows = torch.from_numpy(protocol.rows(raw))
    predicted = logits_of(torch.tensor([[[0, 1, 1, 2]]]))
    scores = case_dice(predicted, rows, torch.from_numpy(protocol.matrix), CLASSES)
    assert scores == {"A": 1.0, "B": 1.0}


def test_a_set_that_holds_others_is_scored_without_hiding_them() -> None:
    # HEAD is any foreground. Its voxels say nothing of A, and A's voxels are inside it.
    allowed = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
    rows = torch.tensor([0, 0, 1, 1, 2, 2], dtype=torch.uint8).view(6, 1, 1)
    predicted = logits_of(torch.tensor([0, 1, 1, 2, 1, 0]).view(6, 1, 1))
    masks = {row: (p.flatten().int().tolist(), t.flatten().int().tolist())
             for row, p, t in set_masks(predicted.softmax(0), rows, allowed)}  # fmt: skip
    assert masks == {
        1: ([0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]),
        2: ([0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]),
    }
    scores = case_dice(predicted, rows, allowed, CLASSES)
    assert scores == {"A": pytest.approx(2 * 1 / (2 + 2)), "A+B": pytest.approx(2 * 3 / (4 + 4))}


def test_a_class_that_the_protocol_does_not_know_is_an_alternative() -> None:
    allowed = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    rows = torch.ones(1, 1, 2, dtype=torch.uint8)
    predicted = logits_of(torch.tensor([[[1, 2]]]))
    assert case_dice(predicted, rows, allowed, CLASSES) == {"A": pytest.approx(2 / 3)}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6))
def test_on_single_classes_the_likeliest_class_is_predicted(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(classes, 3, 4, 5, generator=generator)
    rows = torch.randint(classes, (3, 4, 5), generator=generator, dtype=torch.uint8)
    found = list(set_masks(logits.softmax(0), rows, torch.eye(classes, dtype=torch.bool)))
    assert [row for row, _, _ in found] == list(range(1, classes))
    for row, predicted, true in found:
        assert torch.equal(predicted, logits.argmax(0) == row)
        assert torch.equal(true, rows == row)


def test_of_equals_the_earlier_channel_wins_as_in_a_segmentation() -> None:
    """A head that was split gives both parts the same probability everywhere."""
    logits = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1, 1).expand(3, 2, 2, 2)
    rows = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2]).view(2, 2, 2).to(torch.uint8)
    dice = case_dice(logits, rows, torch.eye(3, dtype=torch.bool), ("background", "a", "b"))
    assert logits.argmax(dim=0).eq(1).all()
    assert dice == {"a": pytest.approx(2 * 4 / 12), "b": 0.0}
