"""Which block trains when and at which rate, in characters for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.text import Text

from hsf_finetune.schedule.display.timeline import peak_text, rates, rows, spans
from hsf_finetune.schedule.stages import Schedule

MIN_WIDTH = 60
"""Characters below which a picture says little."""

_MOST_CELLS, _MOST_CELLS_PER_EPOCH = 96, 8


@dataclass(frozen=True)
class Glyphs:
    """What a picture is made of.

    Args:
        frozen: a block that does not train.
        levels: rates, from the lowest to the highest.
        start: first epoch of a stage.
        sure: epochs that a stage has in any case.
        open: epochs before which it may have ended.
        most: stands before the number of an epoch that may come earlier.
    """

    frozen: str
    levels: str
    start: str
    sure: str
    open: str
    most: str


BLOCK_GLYPHS = Glyphs("·", "▁▂▃▄▅▆▇█", "├", "─", "╌", "≤")
ASCII_GLYPHS = Glyphs(".", ":-=+*#%@", "|", "_", "~", "<=")


def text_picture(schedule: Schedule, width: int, glyphs: Glyphs = BLOCK_GLYPHS) -> Text:
    """One line per block, from the head to the input, over an axis of epochs.

    A character's height is the square root of its rate over the highest of all, so that
    blocks at a hundredth of it can still be told apart from frozen ones and each
    other. Where it stands for several epochs, it shows their highest rate: it is
    drawn as frozen only if the block is frozen in all of them.

    Args:
        schedule: what to draw.
        width: characters per line, at least `MIN_WIDTH`.
        glyphs: what to draw it with.

    Raises:
        ValueError: the lines would be too short.
    """
    if width < MIN_WIDTH:
        raise ValueError(f"a picture needs {MIN_WIDTH} characters per line, not {width}")
    names = rows(schedule)
    notes = [peak_text(schedule, name) or "frozen" for name in names]
    label = max(len(name) for name in (*names, "epoch"))
    room = width - label - max(len(note) for note in notes) - 4
    cells = _cells(schedule, room)
    levels = _levels(cells, len(glyphs.levels))
    picture = Text(no_wrap=True)
    for name, row, note in zip(names, levels, notes, strict=True):
        line = "".join(glyphs.levels[level - 1] if level else glyphs.frozen for level in row)
        picture.append(f"{name:<{label}}  {line}  {note}\n", style="" if row.any() else "dim")
    count = levels.shape[1]
    column = _columns(schedule, count)
    picture.append(f"{'':<{label}}  {_ruler(schedule, column, count, glyphs)}\n", style="dim")
    numbers = _numbers(schedule, column, count, glyphs, width - label - 2)
    picture.append(f"{'epoch':<{label}}  {numbers}\n")
    picture.append(_legend(schedule, float(cells.max()), glyphs), style="dim")
    return picture


def _cells(schedule: Schedule, room: int) -> npt.NDArray[np.float64]:
    """The highest rate of each block in each character: (rows, characters)."""
    epochs = schedule.max_epochs
    count = min(room, _MOST_CELLS)
    if epochs <= count:
        return rates(schedule, min(count // epochs, _MOST_CELLS_PER_EPOCH))
    per_epoch = 2
    sampled = rates(schedule, per_epoch)
    cells = [
        sampled[:, per_epoch * first : per_epoch * end].max(axis=1)
        for first, end in (
            (math.floor(k * epochs / count), math.ceil((k + 1) * epochs / count))
            for k in range(count)
        )
    ]
    return np.stack(cells, axis=1)


def _levels(cells: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """0 where a block is frozen, else 1 to `count`."""
    heights = np.ceil(np.sqrt(cells / cells.max()) * count).astype(np.int64)
    return np.where(cells > 0, np.clip(heights, 1, count), 0)


def _columns(schedule: Schedule, count: int) -> Callable[[int], int]:
    """From an epoch to its first character."""
    return lambda epoch: math.floor(epoch * count / schedule.max_epochs)


def _ruler(schedule: Schedule, column: Callable[[int], int], count: int, glyphs: Glyphs) -> str:
    marks = [glyphs.sure] * count
    for span in spans(schedule):
        if span.open_from is not None:
            start, end = column(span.open_from), column(span.end)
            marks[start:end] = glyphs.open * (end - start)
        marks[column(span.first)] = glyphs.start
    return "".join(marks)


def _numbers(
    schedule: Schedule, column: Callable[[int], int], count: int, glyphs: Glyphs, room: int
) -> str:
    """The epochs in which stages start, and the end, as far as there is room."""
    found = spans(schedule)
    ends_early = any(span.open_from is not None for span in found)
    end = f"{glyphs.most if ends_early else ''}{schedule.max_epochs}"
    end_at = min(count, room - len(end))
    line = ""
    for span in found:
        text = f"{glyphs.most if span.late else ''}{span.first}"
        at = column(span.first)
        if at >= len(line) + bool(line) and at + len(text) < end_at:
            line = f"{line:<{at}}{text}"
    return f"{line:<{end_at}}{end}"


def _legend(schedule: Schedule, highest: float, glyphs: Glyphs) -> str:
    top = len(glyphs.levels)
    shown: Sequence[int] = (top, top // 2, 1)
    scale = "  ".join(
        f"{glyphs.levels[level - 1]} {highest * (level / top) ** 2:.2g}" for level in shown
    )
    legend = f"learning rate up to: {scale}  {glyphs.frozen} frozen"
    if any(span.open_from is not None for span in spans(schedule)):
        legend += f"  {glyphs.open} may end earlier"
    return legend
