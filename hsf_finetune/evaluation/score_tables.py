"""Scores of many cases: CSV, summaries per class, and tables for a terminal."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import numpy as np
from rich.table import Table
from rich.text import Text

from hsf_finetune.evaluation.intervals import Interval, bootstrap_interval
from hsf_finetune.evaluation.metrics import ClassScore, Outcome
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import read_csv, write_csv
from hsf_finetune.system.errors import DataError

Parsed = TypeVar("Parsed")
MEAN = "mean"
"""Name of the summary over all classes."""

_SCORES = [field.name for field in fields(ClassScore)]
_HEADER = ["case", "subject", "dataset", "class", *_SCORES[1:]]


@dataclass(frozen=True)
class ScoreRow:
    """One class of one case.

    Args:
        case: the case, unique in a table.
        subject: the person; cases of one subject are not independent.
        score: the scores.
        dataset: name of the cohort, where there is one.
    """

    case: str
    subject: str
    score: ClassScore
    dataset: str = ""


@dataclass(frozen=True)
class ClassSummary:
    """One class over all cases; `absent` cases count in no other figure.

    Args:
        class_name: the class, or `mean`: each case's mean over the classes that it has a
            value of, then the mean over cases, as everywhere (`val/dice` too); with the counts
            of all classes together.
        dice: mean Dice and its interval; missed and false positive cases count as 0.
        hd95_mm: median HD95 of the scored cases, in mm.
        nsd: mean normalised surface Dice; missed and false positive cases count as 0.
        volume_error_percent: mean signed volume error where the truth has the class.
        scored: cases in which prediction and truth have the class.
        missed: cases in which only the truth has it.
        false_positive: cases in which only the prediction has it.
        absent: cases in which neither has it.
    """

    class_name: str
    dice: Interval
    hd95_mm: float
    nsd: float
    volume_error_percent: float
    scored: int
    missed: int
    false_positive: int
    absent: int


def write_scores(path: str | Path, rows: Iterable[ScoreRow]) -> None:
    """Writes one line per case and class as CSV, atomically; NaN is an empty cell.

    Numbers keep all their digits, so that `read_scores` gives the same rows back.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = ([r.case, r.subject, r.dataset, *(getattr(r.score, n) for n in _SCORES)] for r in rows)
    write_csv(path, _HEADER, lines)


def read_scores(path: str | Path) -> list[ScoreRow]:
    """Reads what `write_scores` wrote.

    Raises:
        DataError: the file cannot be read or is no such table.
    """
    return read_table(path, _HEADER, "scores", lambda lines: [_parse_row(*line) for line in lines])


def read_table(
    path: str | Path, header: list[str], what: str, parse: Callable[[list[list[str]]], Parsed]
) -> Parsed:
    """What a function makes of the lines of a CSV file with this header.

    Raises:
        DataError: the file cannot be read or is no such table.
    """
    try:
        found, *lines = read_csv(path) or [[]]
        if found != header:
            raise ValueError(f"columns {', '.join(found)}")
        return parse(lines)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(
            f"cannot read the {what}", file=path, found=error, expected=", ".join(header)
        ) from error


def _parse_row(
    case: str, subject: str, dataset: str, name: str, outcome: str, *cells: str
) -> ScoreRow:
    if outcome not in get_args(Outcome):
        raise ValueError(f"outcome '{outcome}'")
    numbers = [float(cell) if cell else math.nan for cell in cells]
    return ScoreRow(case, subject, ClassScore(name, cast("Outcome", outcome), *numbers), dataset)


def summarise(rows: Iterable[ScoreRow]) -> list[ClassSummary]:
    """One summary per class in order of first appearance, then `mean` over the classes."""
    rows = list(rows)
    if not rows:
        return []
    parts = {**_group_by_class(rows), MEAN: rows}
    return [_summary(name, part) for name, part in parts.items()]


def paired_differences(
    before: Iterable[ScoreRow], after: Iterable[ScoreRow]
) -> dict[str, Interval]:
    """Change of Dice, per class and for `mean`, over the cases that have both.

    The `mean` of a case is that of the classes with a Dice before and after, so that a class
    of one model alone does not count as a change.
    """
    old = {(r.case, r.score.class_name): r.score.dice for r in before}

    def change(row: ScoreRow) -> float:
        return row.score.dice - old.get((row.case, row.score.class_name), math.nan)

    rows = list(after)
    parts = {**_group_by_class(rows), MEAN: rows}
    return {
        name: bootstrap_interval(*_case_means(part, change), bounds=(-1.0, 1.0))
        for name, part in parts.items()
    }


def summary_table(summaries: Sequence[ClassSummary], title: str | None = None) -> Table:
    """The summaries as a table that fits 100 columns."""
    shown = _without_needless_mean(summaries)
    note = interval_note({summary.class_name: summary.dice for summary in shown})
    table = _make_table(
        title,
        f"Dice: mean{note}; HD95: median; NSD, volume error: means.\n"
        "missed: only in the label; extra: only in the prediction; absent: in neither.",
    )
    for heading in ("Dice", "HD95 mm", "NSD", "volume %", "scored", "missed", "extra", "absent"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in shown:
        counts = (summary.scored, summary.missed, summary.false_positive, summary.absent)
        table.add_row(
            Text(summary.class_name),
            format_interval(summary.dice),
            "-" if math.isnan(summary.hd95_mm) else console.format_size(summary.hd95_mm),
            format_number(summary.nsd, ".3f"),
            format_number(summary.volume_error_percent, "+.1f"),
            *(str(count) for count in counts),
            style="bold" if summary.class_name == MEAN else None,
        )
    return table


def comparison_table(
    before: Iterable[ScoreRow],
    after: Sequence[ScoreRow],
    titles: tuple[str, str] = ("pretrained", "fine-tuned"),
) -> Table:
    """Dice of two models side by side, and the paired change, in 100 columns.

    Args:
        before: scores of the model started from.
        after: scores of the other model; its classes make the rows.
        titles: headings of the two models.

    Returns:
        The table; "-" stands where there is no value.
    """
    before, shown = list(before), _without_needless_mean(summarise(after))
    old = {summary.class_name: summary.dice for summary in summarise(before)}
    differences = paired_differences(before, after)
    note, of_change = (
        interval_note({one.class_name: intervals[one.class_name] for one in shown})
        for intervals in ({one.class_name: one.dice for one in shown}, differences)
    )
    of_change = of_change if of_change != note else ""
    table = _make_table(None, f"Dice: mean{note}; change: over the cases with both{of_change}.")
    for heading in (*titles, "change"):
        table.add_column(Text(heading), justify="right", min_width=23, max_width=24)
    for summary in shown:
        name = summary.class_name
        table.add_row(
            Text(name),
            format_interval(old.get(name)),
            format_interval(summary.dice),
            format_interval(differences.get(name), sign="+"),
            style="bold" if name == MEAN else None,
        )
    return table


def protocol_table(rows: Iterable[ScoreRow]) -> Table | None:
    """Dice of each dataset in its own protocol, side by side; None if all protocols are the same.

    Returns:
        Classes and sets down, datasets across, `mean (cases with a Dice)` in the cells.
    """
    by_dataset: dict[str, list[ScoreRow]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    columns = {name: _group_by_class(part) for name, part in by_dataset.items()}
    if len({frozenset(parts) for parts in columns.values()}) < 2:
        return None
    table = _make_table(
        "Dice of each dataset in its own protocol",
        "mean (cases); - where the protocol lacks the class or no case has it.",
    )
    for name in columns:
        table.add_column(Text(name), justify="right")
    for title in dict.fromkeys(title for parts in columns.values() for title in parts):
        cells = (parts.get(title, []) for parts in columns.values())
        table.add_row(Text(title), *(_mean_dice(cell) for cell in cells))
    means = (_mean_dice(part) for part in by_dataset.values())
    table.add_row(Text(MEAN), *means, style="bold")
    return table


def format_interval(interval: Interval | None, sign: str = "", digits: int = 3) -> Text:
    """`0.842 [0.811, 0.868]`; a `Text`, since Rich reads brackets as markup."""
    if interval is None or interval.n == 0:
        return Text("-")
    values = (interval.mean, interval.low, interval.high)
    mean, low, high = (f"{value:{sign}.{digits}f}" for value in values)
    return Text(mean if math.isnan(interval.low) else f"{mean} [{low}, {high}]")


def interval_note(rows: Mapping[str, Interval]) -> str:
    """Of which kind the intervals of a table's rows are, and over how many subjects.

    Args:
        rows: name of each row -> its interval.
    """
    groups: dict[str, list[str]] = {}
    for name, one in rows.items():
        kind = f"{one.kind} interval over {one.subjects} subjects"
        if one.n:
            few = "no interval from one subject"
            groups.setdefault(kind if one.subjects > 1 else few, []).append(name)
    if not groups:
        return ""
    usual = max(groups, key=lambda kind: len(groups[kind]))
    others = [f"{kind} for {', '.join(names)}" for kind, names in groups.items() if kind != usual]
    note = "; ".join([usual, *others])
    return f" ({note})" if usual.startswith("no") else f" [95 % {note}]"


def format_number(value: float, form: str) -> str:
    """A number as `format` writes it; `-` for NaN."""
    return "-" if math.isnan(value) else format(value, form)


def _mean_dice(rows: Sequence[ScoreRow]) -> Text:
    values = [v for v in _case_means(rows, lambda r: r.score.dice)[0] if not math.isnan(v)]
    return Text(f"{np.mean(values):.3f} ({len(values)})" if values else "-")


def _group_by_class(rows: Iterable[ScoreRow]) -> dict[str, list[ScoreRow]]:
    parts: dict[str, list[ScoreRow]] = {}
    for row in rows:
        parts.setdefault(row.score.class_name, []).append(row)
    return parts


def _case_means(
    rows: Sequence[ScoreRow], value: Callable[[ScoreRow], float]
) -> tuple[list[float], list[str]]:
    """Each case's mean over its rows that have the value, and its subject."""
    cases: dict[str, list[float]] = {}
    subjects: dict[str, str] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(value(row))
        subjects[row.case] = row.subject
    return [_reduce_known(values, np.mean) for values in cases.values()], list(subjects.values())


def _reduce_known(
    values: Iterable[float], reduce: Callable[[list[float]], np.floating[Any]]
) -> float:
    """The mean or median of the values that are not NaN; NaN if none is."""
    known = [v for v in values if not math.isnan(v)]
    return float(reduce(known)) if known else math.nan


def _summary(name: str, rows: Sequence[ScoreRow]) -> ClassSummary:
    outcomes = Counter(row.score.outcome for row in rows)
    return ClassSummary(
        class_name=name,
        dice=bootstrap_interval(*_case_means(rows, lambda r: r.score.dice), bounds=(0.0, 1.0)),
        hd95_mm=_reduce_known(_case_means(rows, lambda r: r.score.hd95_mm)[0], np.median),
        nsd=_reduce_known(_case_means(rows, lambda r: r.score.nsd)[0], np.mean),
        volume_error_percent=_reduce_known(
            _case_means(rows, lambda r: r.score.volume_error_percent)[0], np.mean
        ),
        scored=outcomes["scored"],
        missed=outcomes["missed"],
        false_positive=outcomes["false_positive"],
        absent=outcomes["absent"],
    )


def _without_needless_mean(summaries: Sequence[ClassSummary]) -> Sequence[ClassSummary]:
    """All summaries, but no mean over a single class."""
    return summaries[:1] if len(summaries) == 2 else summaries


def _make_table(title: str | None, caption: str) -> Table:
    table = console.TitledTable(title or "", caption)
    table.add_column("class", overflow="fold", min_width=8, max_width=24)
    return table
