"""A schedule sampled over time: what a picture of it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hsf_finetune.schedule.stages import NORMS, Schedule
from hsf_finetune.system.console import count_of


@dataclass(frozen=True)
class StageSpan:
    """When a stage runs.

    Args:
        first: 0-based epoch in which it starts, if no stage before it ends early.
        open_from: earliest epoch at which it may be over; None if it has a fixed length.
        end: epoch at which it is over at the latest.
        may_start_earlier: whether a stage before it may end early.
    """

    first: int
    open_from: int | None
    end: int
    may_start_earlier: bool


def row_names(schedule: Schedule) -> tuple[str, ...]:
    """The rows of a picture: blocks from the head to the input, then `norms` if they train."""
    norms = (NORMS,) if NORMS in schedule.unfreeze_epoch else ()
    return (*reversed(schedule.blocks), *norms)


def sample_rates(schedule: Schedule, samples_per_epoch: int) -> npt.NDArray[np.float64]:
    """The learning rate of each of `row_names` over time, 0 where it is frozen.

    Args:
        schedule: what to sample.
        samples_per_epoch: taken as steps; with the real number of steps only the length
            of the first step of a warm-up differs.

    Returns:
        Rates (rows, epochs * samples_per_epoch).
    """
    samples = schedule.max_epochs * samples_per_epoch
    times = [divmod(sample, samples_per_epoch) for sample in range(samples)]
    return np.array(
        [
            [schedule.rate(block, epoch, step, samples_per_epoch) for epoch, step in times]
            for block in row_names(schedule)
        ]
    )


def stage_spans(schedule: Schedule) -> list[StageSpan]:
    """When each stage runs, as far as it is known."""
    spans: list[StageSpan] = []
    may_start_earlier = False
    for index, stage in enumerate(schedule.stages):
        first = schedule.first_epoch(index)
        end = first + stage.length
        may_end = stage.patience_epochs is not None and index not in schedule.history.ended
        # The first epoch sets the best Dice; `patience_epochs` without a better one may follow.
        earliest = first + 1 + (stage.patience_epochs or 0)
        open_from = earliest if may_end and earliest < end else None
        spans.append(StageSpan(first, open_from, end, may_start_earlier))
        may_start_earlier = may_start_earlier or open_from is not None
    return spans


def may_end_early(schedule: Schedule) -> bool:
    """Whether the end of the schedule is not known, since a plateau ends stages."""
    return any(span.open_from is not None for span in stage_spans(schedule))


def epoch_labels(schedule: Schedule, at_most: str) -> tuple[dict[int, str], str]:
    """Labels of the epochs in which stages start, and of the end.

    Args:
        schedule: what to label.
        at_most: stands before an epoch that may come earlier.
    """
    starts = {
        span.first: f"{at_most if span.may_start_earlier else ''}{span.first}"
        for span in stage_spans(schedule)
    }
    return starts, f"{at_most if may_end_early(schedule) else ''}{schedule.max_epochs}"


def title_text(schedule: Schedule) -> str:
    """Strategy and length, such as `gradual, 45 epochs at most`."""
    epochs = count_of(schedule.max_epochs, "epoch")
    return f"{schedule.strategy}, {epochs}{' at most' if may_end_early(schedule) else ''}"


def peak_rates_text(schedule: Schedule, block: str) -> str:
    """Peak rates of a block (or `norms`), such as `0.001 to 0.0003`; empty if it is frozen."""
    peaks = {stage.rates[block] for stage in schedule.stages if block in stage.rates}
    extremes = [f"{rate:.3g}" for rate in (max(peaks), min(peaks))] if peaks else []
    return " to ".join(dict.fromkeys(extremes))
