"""A schedule sampled over time: what a picture of it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hsf_finetune.schedule.stages import NORMS, Schedule


@dataclass(frozen=True)
class Span:
    """When a stage runs.

    Args:
        first: 0-based epoch in which it starts, if none before it ends early.
        open_from: earliest epoch at which it may be over; None is at its end alone.
        end: epoch at which it is over at the latest.
        late: whether it may start earlier than `first`.
    """

    first: int
    open_from: int | None
    end: int
    late: bool


def rows(schedule: Schedule) -> tuple[str, ...]:
    """The lines of a picture: blocks from the head to the input, `norms` if they train."""
    norms = (NORMS,) if NORMS in schedule.unfreeze_epoch else ()
    return (*reversed(schedule.blocks), *norms)


def rates(schedule: Schedule, samples_per_epoch: int) -> npt.NDArray[np.float64]:
    """The learning rate of each of `rows` over time, 0 where it is frozen.

    Args:
        schedule: what to sample.
        samples_per_epoch: how often; that a real epoch has another number of steps
            changes nothing but the length of the first step of a warm-up.

    Returns:
        Rates (rows, epochs * samples_per_epoch).
    """
    samples = schedule.max_epochs * samples_per_epoch
    times = [divmod(sample, samples_per_epoch) for sample in range(samples)]
    return np.array(
        [
            [schedule.rate(block, epoch, step, samples_per_epoch) for epoch, step in times]
            for block in rows(schedule)
        ]
    )


def spans(schedule: Schedule) -> list[Span]:
    """When each stage runs, as far as that is known."""
    found: list[Span] = []
    late = False
    for index, stage in enumerate(schedule.stages):
        first = schedule.first_epoch(index)
        end = first + stage.length
        may_end = stage.patience_epochs is not None and index not in schedule.history.ended
        # Its first epoch sets the best; so many without a better one may follow at once.
        earliest = first + 1 + (stage.patience_epochs or 0)
        open_from = earliest if may_end and earliest < end else None
        found.append(Span(first, open_from, end, late))
        late = late or open_from is not None
    return found


def peak_text(schedule: Schedule, block: str) -> str:
    """Peak rate of a block (or `norms`) in its stages, `0.001 to 0.0003`; empty if frozen."""
    peaks = {stage.rates[block] for stage in schedule.stages if block in stage.rates}
    highest_first = [f"{rate:.3g}" for rate in sorted(peaks, reverse=True)]
    return " to ".join([*highest_first[:1], *highest_first[1:][-1:]])
