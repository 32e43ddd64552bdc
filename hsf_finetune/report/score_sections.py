"""Sections about scores, which reports of runs and of files share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hsf_finetune.evaluation.evaluate import Evaluation
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    format_interval,
    protocol_table,
    summarise,
    summary_table,
)
from hsf_finetune.evaluation.volume_agreement import agree_in_volume, volumes_table
from hsf_finetune.report import figures
from hsf_finetune.report.page import Grid, Page, Part, Picture, Section
from hsf_finetune.system.console import count_of

_LISTED = 20
"""Cases of the list of the worst."""


def report_scores(evaluation: Evaluation) -> Page:
    """The report of segmentations that were compared with labels."""
    rows = evaluation.rows
    mean = summarise(rows)[-1].dice
    on = f"{count_of(mean.n, 'case')} of {count_of(mean.subjects, 'subject')}"
    answer = [f"Mean Dice on {on}: {format_interval(mean)}.", name_weakest(rows)]
    text = "Dice of each class with its interval"
    colours = figures.colours_of(one.class_name for one in evaluation.summary[:-1])
    drawn = Picture(figures.draw_change((), rows, colours), text)
    return Page(
        title="Segmentations against labels",
        about=evaluation.title,
        answer=answer,
        sections=[
            Section("Each class", [drawn, *tables_of_classes(rows)]),
            Section("Worst cases", [list_worst(rows)]),
            Section("Volumes", show_volumes(rows, colours)),
        ],
    )


def name_weakest(rows: Sequence[ScoreRow]) -> str:
    """The weakest class and the worst case, in a sentence."""
    known = [one for one in summarise(rows)[:-1] if not math.isnan(one.dice.mean)]
    lowest = min(known, key=lambda one: one.dice.mean, default=None)
    case, dice = rank_cases(rows)[0]
    worst = f"he worst case is {case} ({dice:.3f})."
    if lowest is None or len(known) == 1:
        return f"T{worst}"
    return f"The weakest class is {lowest.class_name} ({lowest.dice.mean:.3f}), t{worst}"


def tables_of_classes(rows: Sequence[ScoreRow]) -> list[Grid]:
    """The summary of each class, and Dice of each dataset where their protocols differ."""
    tables = [summary_table(summarise(rows)), protocol_table(rows)]
    return [Grid.from_rich(table) for table in tables if table is not None]


def list_worst(rows: Sequence[ScoreRow]) -> Grid:
    """The cases with the lowest mean Dice."""
    order = rank_cases(rows)
    return Grid(
        ["case", "mean Dice"],
        [[case, f"{dice:.3f}"] for case, dice in order[:_LISTED]],
        note=f"the first {min(len(order), _LISTED)} of {count_of(len(order), 'case')}, worst first",
    )


def rank_cases(rows: Sequence[ScoreRow]) -> list[tuple[str, float]]:
    """Mean Dice of each case, the worst first; those without any come last."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.case, []).append(row.score.dice)
    means = {
        case: sum(known) / len(known) if (known := [d for d in dice if d == d]) else math.nan
        for case, dice in found.items()
    }
    return sorted(means.items(), key=lambda one: (math.isnan(one[1]), one[1]))


def show_volumes(rows: Sequence[ScoreRow], colours: Mapping[str, str]) -> list[Part]:
    """Agreement of volumes, as a table and drawn; nothing where no label has a class."""
    agreements = agree_in_volume(rows)
    if not agreements:
        return []
    text = "differences of predicted and true volumes over their means, class by class"
    note = "solid: mean difference; dashed: limits of agreement (Bland, Altman 1986)"
    return [
        Grid.from_rich(volumes_table(agreements)),
        Picture(figures.draw_volumes(agreements, colours), text, note),
    ]
