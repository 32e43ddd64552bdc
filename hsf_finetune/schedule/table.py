"""The schedule as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from hsf_finetune.schedule.schedule import Schedule


def schedule_table(schedule: Schedule, parameters: Mapping[str, int]) -> Table:
    """One row per stage: epochs, blocks, trainable parameters and share, peak rates.

    Args:
        schedule: what to show.
        parameters: block -> number of parameters.
    """
    total = sum(parameters.values())
    table = Table(
        title=f"Schedule: {schedule.regime}, {schedule.max_epochs} epochs",
        caption=_caption(schedule),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("epochs", no_wrap=True)
    table.add_column("starts to train (peak learning rate)")
    table.add_column("trains in all")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for stage in schedule.stages:
        count = sum(parameters[b] for b in stage.trains)
        table.add_row(
            f"{stage.first_epoch}-{stage.end_epoch - 1}",
            "\n".join(_with_rates(schedule, stage.thaws)),
            "everything" if len(stage.trains) == len(schedule.blocks) else ", ".join(stage.trains),
            f"{count:,}",
            f"{count / total:.1%}",
        )
    return table


def _with_rates(schedule: Schedule, blocks: Sequence[str]) -> list[str]:
    """Blocks that share a peak rate together, such as `decoder1, decoder2 (0.001)`."""
    at_rate: dict[float, list[str]] = {}
    for block in blocks:
        at_rate.setdefault(schedule.peak_rate[block], []).append(block)
    return [f"{', '.join(names)} ({rate:g})" for rate, names in at_rate.items()]


def _caption(schedule: Schedule) -> str:
    curve = schedule.curve
    lines = [
        f"A block's rate warms up over {curve.warmup:.0%} of its epochs, then falls along a "
        f"cosine to {curve.final:g} of its peak."
    ]
    if schedule.never_thawed:
        lines.append(f"Frozen to the end: {', '.join(schedule.never_thawed)}.")
    return "\n".join(lines)
