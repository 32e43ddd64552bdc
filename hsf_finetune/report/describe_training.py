"""How long a run trained, at which rates and in which precision, in words for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hsf_finetune.training.training_cost import TrainingCost

_PRECISIONS: Mapping[str, str] = {
    "bf16-mixed": "bfloat16 mixed precision",
    "16-mixed": "float16 mixed precision",
    "32-true": "float32 precision",
    "64-true": "float64 precision",
    "bf16-true": "bfloat16 precision",
    "16-true": "float16 precision",
}


def describe_training(
    costs: Mapping[str, Sequence[TrainingCost]],
    schedules: Sequence[Mapping[str, Any]],
    batch_size: object,
    precisions: Iterable[str] = (),
) -> str:
    """Epochs and steps of one run, how many runs there are, the precision, and the peak rates.

    Args:
        costs: whose training (`teacher`, `student`; `` where all is one) -> its cost in each run.
        schedules: from the schedule.json of every training.
        batch_size: of all of them.
        precisions: of each of them, as Lightning names them; `auto` is not known.
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
    known = dict.fromkeys(_PRECISIONS.get(p, f"precision {p}") for p in precisions if p != "auto")
    in_precision = f" in {' and '.join(known)}" if known else ""
    return f"Training took{where} {' and '.join(lengths)}{in_precision}{_describe_rates(schedules)}"


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
