"""Which block trains when and at which rate, in characters for a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.text import Text

from hsf_finetune.schedule.display.timeline import (
    epoch_labels,
    may_end_early,
    peak_rates_text,
    row_names,
    sample_rates,
    stage_spans,
)
from hsf_finetune.schedule.stages import Schedule

MIN_WIDTH = 60
"""Characters below which a picture shows little."""

_MOST_COLUMNS, _MOST_COLUMNS_PER_EPOCH = 96, 8


@dataclass(frozen=True)
class CharacterSet:
    """The characters that a picture is drawn with.

    Args:
        frozen: a block that does not train.
        levels: rates, from the lowest to the highest.
        start: first epoch of a stage.
        certain: epochs that a stage certainly has.
        uncertain: epochs before which it may have ended.
        at_most: stands before the number of an epoch that may come earlier.
    """

    frozen: str
    levels: str
    start: str
    certain: str
    uncertain: str
    at_most: str


UNICODE_CHARACTERS = CharacterSet("·", "▁▂▃▄▅▆▇█", "├", "─", "╌", "≤")
ASCII_CHARACTERS = CharacterSet(".", ":-=+*#%@", "|", "_", "~", "<=")


def draw_as_text(
    schedule: Schedule, width: int, characters: CharacterSet = UNICODE_CHARACTERS
) -> Text:
    """One line per block, from the head to the input, over an axis of epochs.

    A character's height is the square root of its rate over the highest of all, so that
    blocks at a hundredth of it can still be told apart from frozen ones and each
    other. Where it stands for several epochs, it shows their highest rate: it is
    drawn as frozen only if the block is frozen in all of them.

    Args:
        schedule: what to draw.
        width: characters per line, at least `MIN_WIDTH`.
        characters: what to draw it with.

    Raises:
        ValueError: the lines would be too short.
    """
    if width < MIN_WIDTH:
        raise ValueError(f"a picture needs {MIN_WIDTH} characters per line, not {width}")
    names = row_names(schedule)
    notes = [peak_rates_text(schedule, name) or "frozen" for name in names]
    label = max(len(name) for name in (*names, "epoch"))
    room = width - label - max(len(note) for note in notes) - 4
    rates = _column_rates(schedule, room)
    levels = _levels(rates, len(characters.levels))
    picture = Text(no_wrap=True)
    for name, row, note in zip(names, levels, notes, strict=True):
        line = "".join(characters.levels[n - 1] if n else characters.frozen for n in row)
        picture.append(f"{name:<{label}}  {line}  {note}\n", style="" if row.any() else "dim")
    ruler = _ruler(schedule, levels.shape[1], characters)
    picture.append(f"{'':<{label}}  {ruler}\n", style="dim")
    numbers = _epoch_numbers(schedule, levels.shape[1], width - label - 2, characters)
    picture.append(f"{'epoch':<{label}}  {numbers}\n")
    picture.append(_legend(schedule, float(rates.max()), characters), style="dim")
    return picture


def _column_rates(schedule: Schedule, room: int) -> npt.NDArray[np.float64]:
    """The highest rate of each block in each column of characters: (rows, columns)."""
    epochs = schedule.max_epochs
    count = min(room, _MOST_COLUMNS)
    if epochs <= count:
        return sample_rates(schedule, min(count // epochs, _MOST_COLUMNS_PER_EPOCH))
    per_epoch = 2
    rates = sample_rates(schedule, per_epoch)
    bounds = [
        (math.floor(k * epochs / count), math.ceil((k + 1) * epochs / count)) for k in range(count)
    ]
    columns = [rates[:, per_epoch * a : per_epoch * b].max(axis=1) for a, b in bounds]
    return np.stack(columns, axis=1)


def _levels(rates: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """0 where a block is frozen, else 1 to `count`."""
    heights = np.ceil(np.sqrt(rates / rates.max()) * count).astype(np.int64)
    return np.where(rates > 0, np.clip(heights, 1, count), 0)


def _column(epoch: int, schedule: Schedule, count: int) -> int:
    """The first of `count` columns of an epoch."""
    return math.floor(epoch * count / schedule.max_epochs)


def _ruler(schedule: Schedule, count: int, characters: CharacterSet) -> str:
    marks = [characters.certain] * count
    for span in stage_spans(schedule):
        if span.open_from is not None:
            start, end = (_column(e, schedule, count) for e in (span.open_from, span.end))
            marks[start:end] = characters.uncertain * (end - start)
        marks[_column(span.first, schedule, count)] = characters.start
    return "".join(marks)


def _epoch_numbers(schedule: Schedule, count: int, room: int, characters: CharacterSet) -> str:
    """The epochs in which stages start, and the end, as far as there is room."""
    starts, end = epoch_labels(schedule, characters.at_most)
    end_at = min(count, room - len(end))
    line = ""
    for epoch, text in starts.items():
        at = _column(epoch, schedule, count)
        if at >= len(line) + bool(line) and at + len(text) < end_at:
            line = f"{line:<{at}}{text}"
    return f"{line:<{end_at}}{end}"


def _legend(schedule: Schedule, highest: float, characters: CharacterSet) -> str:
    top = len(characters.levels)
    scale = "  ".join(
        f"{characters.levels[level - 1]} {highest * (level / top) ** 2:.2g}"
        for level in (top, top // 2, 1)
    )
    legend = f"learning rate up to: {scale}  {characters.frozen} frozen"
    if may_end_early(schedule):
        legend += f"  {characters.uncertain} may end earlier"
    return legend
