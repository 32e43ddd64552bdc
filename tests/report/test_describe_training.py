"""The methods say how long one run trained, how many runs there were, and the rates of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hsf_finetune.report.describe_training import describe_training
from hsf_finetune.training.training_cost import TrainingCost


def cost(epochs: int, steps: int) -> TrainingCost:
    return TrainingCost(epochs, steps, 1, 1, 1, 1, 1)


def schedule(*rates: dict[str, float], boost: dict[str, Any] | None = None) -> dict[str, Any]:
    stages = [{"rates": of_stage, "boost": boost} for of_stage in rates]
    return {"blocks": ["encoder1", "decoder1", "head"], "stages": stages}


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ({"": [cost(1, 4)]}, "Training took 1 epoch (4 steps of batch size 2)"),
        (
            {"": [cost(24, 72), cost(20, 60), cost(24, 96)]},
            "Training took, in each of 3 runs (2 folds and a final model on all scans), "
            "20 to 24 epochs (60 to 96 steps of batch size 2)",
        ),
        (
            {"teacher": [cost(3, 9)], "student": [cost(4, 20)]},
            "Training took 3 epochs (9 steps of batch size 2) for the teacher and "
            "4 epochs (20 steps of batch size 2) for the student",
        ),
    ],
)
def test_epochs_are_those_of_one_run(costs: dict[str, list[TrainingCost]], said: str) -> None:
    assert describe_training(costs, [], 2) == said


@pytest.mark.parametrize(
    ("schedules", "said"),
    [
        ([schedule({"encoder1": 1e-3, "head": 1e-3})], "at a peak learning rate of 0.001"),
        ([schedule({"head": 1e-2})], "at a peak learning rate of 0.01 of the head"),
        (
            [schedule({"head": 1e-2}, {"encoder1": 5e-4, "decoder1": 9e-4, "head": 1e-2})],
            "at a peak learning rate of 0.01 of the head and 0.0005 to 0.0009 of the other blocks",
        ),
        (
            [schedule({"encoder1": 1e-3, "head": 1e-3}, boost={"block": "head", "factor": 3.0})],
            "at a peak learning rate of 0.003 of the head and 0.001 of the other blocks",
        ),
        (
            [schedule({"encoder1": 1e-4, "head": 1e-3}), schedule({"head": 1e-2})],
            "at peak learning rates of 0.001 to 0.01 of the head and 0.0001 of the other blocks",
        ),
    ],
)
def test_rates_are_those_of_the_schedule(schedules: Sequence[dict[str, Any]], said: str) -> None:
    assert describe_training({"": [cost(1, 4)]}, schedules, 2).endswith(f") {said}")


def test_the_precision_is_that_of_the_trainings() -> None:
    costs = {"": [cost(1, 4), cost(1, 4)]}
    text = describe_training(costs, [schedule({"head": 1e-2})], 2, ["bf16-mixed", "32-true"])
    assert "2) in bfloat16 mixed precision and float32 precision at a peak" in text
    assert describe_training(costs, [], 2, ["auto"]).endswith("of batch size 2)")
