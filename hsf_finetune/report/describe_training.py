"""How long a run trained, and at which rates, in words for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hsf_finetune.training.training_cost import TrainingCost


def describe_training(
    costs: Mapping[str, Sequence[TrainingCost]],
    schedules: Sequence[Mapping[str, Any]],
    batch_size: object,
) -> str:
    """Epochs and steps of one run, how many runs there are, and the peak learning rates.

    Args:
        costs: whose training (`teacher`, `student`; `` where all is one) -> its cost in each run.
        schedules: from the schedule.json of every training.
        batch_size: of all of them.
    """
    runs = max(len(of_each) for of_each in costs.values())
    where = (
        f", in each of {runs} runs ({runs - 1} folds and a final model on all scans),"
        if runs > 1
        else ""
    )
    lengths = [
        f"{span_of([cost.epochs for cost in of_each], 'epoch')} "
        f"({span_of([cost.steps for cost in of_each], 'step')} of batch size {batch_size})"
        + (f" for the {name}" if name else "")
        for name, of_each in costs.items()
    ]
    return f"Training took{where} {' and '.join(lengths)}{_describe_rates(schedules)}"


def _describe_rates(schedules: Iterable[Mapping[str, Any]]) -> str:
    """The highest rates of the head and of the other blocks, over all stages."""
    head, others = set[float](), set[float]()
    for schedule in schedules:
        for stage in schedule["stages"]:
            boost = stage.get("boost")
            for block, rate in stage["rates"].items():
                factor = boost["factor"] if boost and boost["block"] == block else 1.0
                (head if block == schedule["blocks"][-1] else others).add(rate * factor)
    if not head | others:
        return ""
    if not others or not head or head == others:
        only = "" if head == others else " of the head" if head else " of all blocks but the head"
        return f" at {_rates(head | others)}{only}"
    return f" at {_rates(head)} of the head and {_rates(others, named=False)} of the other blocks"


def _rates(rates: Iterable[float], named: bool = True) -> str:
    shown = list(dict.fromkeys(f"{rate:.2g}" for rate in sorted(rates)))
    span = shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"
    return (
        (f"a peak learning rate of {span}" if len(shown) == 1 else f"peak learning rates of {span}")
        if named
        else span
    )


def span_of(counts: Sequence[int], noun: str) -> str:
    """`3 epochs`, or `3 to 5 epochs` where runs differ."""
    low, high = min(counts), max(counts)
    number = str(high) if low == high else f"{low} to {high}"
    return f"{number} {noun}{'' if high == 1 else 's'}"
