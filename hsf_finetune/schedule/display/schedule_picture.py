"""Which block trains when and at which rate, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hsf_finetune.schedule.display.timeline import (
    StageSpan,
    epoch_labels,
    may_end_early,
    peak_rates_text,
    row_names,
    sample_rates,
    stage_spans,
    title_text,
)
from hsf_finetune.schedule.stages import NORMS, Schedule
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import OutputError

FROZEN = "#e4e4e4"
"""Colour of a block that does not train."""
LOWEST = 1e-5
"""Share of the highest rate below which colours no longer change."""

_FORMATS = (".png", ".pdf", ".svg")
_LINE, _SMALL = "#404040", 8
_HATCHED: dict[str, Any] = {"hatch": "////", "edgecolor": _LINE}
_AT_MOST = "\N{LESS-THAN OR EQUAL TO}"


def save_picture(schedule: Schedule, path: Path) -> None:
    """Writes the picture as PNG, PDF or SVG.

    Raises:
        OutputError: the file has another suffix, or cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(
            "no picture can be written in this format",
            file=path,
            expected=", ".join(_FORMATS),
            fix=f"-o {path.stem or 'plan'}.png",
        )
    with atomic_write(path) as temporary:
        draw_schedule(schedule).savefig(temporary)


def draw_schedule(schedule: Schedule) -> Figure:
    """Blocks from the head (top) to the input over epochs; the colour is the learning rate.

    Above them are the stages; where one may end before its greatest length it is
    hatched, and epochs that may come earlier are marked with a <= sign.
    """
    names, spans = row_names(schedule), stage_spans(schedule)
    samples = int(np.clip(round(600 / schedule.max_epochs), 1, 40))
    rates = sample_rates(schedule, samples)
    figure = Figure(figsize=(8.5, 1.9 + 0.25 * len(names)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    strip, axis = figure.subplots(2, 1, sharex=True, height_ratios=[1, len(names)])
    # Yellow to dark red for low to high rates.
    colours = ListedColormap(mpl.colormaps["YlOrRd"](np.linspace(0.12, 1, 256)))
    image = axis.imshow(
        np.ma.masked_equal(rates, 0.0),
        norm=_colour_scale(rates),
        cmap=colours.with_extremes(bad=FROZEN),
        aspect="auto",
        interpolation="nearest",
        extent=(0, schedule.max_epochs, len(names), 0),
    )
    _label_axes(axis, schedule, names, spans)
    _draw_stages(strip, spans)
    bar = figure.colorbar(image, ax=[strip, axis], pad=0.02, fraction=0.05, aspect=18)
    bar.set_label("learning rate (peaks in brackets)", fontsize=_SMALL + 1)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.formatter = FuncFormatter(lambda rate, _: f"{rate:g}")
    figure.suptitle(title_text(schedule), fontsize=11)
    patches = [Patch(color=FROZEN, label="frozen")]
    if may_end_early(schedule):
        patches.append(Patch(fill=False, label="the stage may have ended", **_HATCHED))
    figure.legend(
        handles=patches, loc="outside lower left", ncols=2, fontsize=_SMALL, frameon=False
    )
    return figure


def _colour_scale(rates: npt.NDArray[np.float64]) -> LogNorm:
    """Colours for two decades of the highest rate, or for the other peaks below that."""
    highest = float(rates.max())
    peaks = rates.max(axis=1)
    lowest = min(highest / 100, float(peaks[peaks > 0].min()) / 10)
    return LogNorm(max(lowest, LOWEST * highest), highest)


def _label_axes(
    axis: Axes, schedule: Schedule, names: Sequence[str], spans: Sequence[StageSpan]
) -> None:
    labels = []
    for name in names:
        shown, peaks = "other norms" if name == NORMS else name, peak_rates_text(schedule, name)
        labels.append(f"{shown} ({peaks})" if peaks else shown)
    size = _SMALL + 1 if len(names) <= 20 else _SMALL
    axis.set_yticks(np.arange(len(names)) + 0.5, labels, fontsize=size)
    axis.tick_params(axis="y", length=0)
    for line in range(1, len(names)):
        axis.axhline(line, color="white", linewidth=1.5)
    for span in spans[1:]:
        axis.axvline(span.first, color=_LINE, linewidth=0.6)
    axis.set_xlabel("epoch", fontsize=_SMALL + 1)
    ticks = _epoch_ticks(schedule)
    axis.set_xticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=_SMALL)
    axis.spines[:].set_visible(False)


def _epoch_ticks(schedule: Schedule) -> list[tuple[int, str]]:
    """The end and the epochs in which stages start, or round ones, as far as there is room."""
    starts, end_label = epoch_labels(schedule, _AT_MOST)
    end = schedule.max_epochs
    ticks = {0: "0", end: end_label}
    if len(starts) == 1:
        starts = {int(n): str(int(n)) for n in MaxNLocator(6, integer=True).tick_values(0, end)}
    for epoch, text in starts.items():
        if epoch < end and min(abs(epoch - other) for other in ticks) >= 0.05 * end:
            ticks[epoch] = text
    return sorted(ticks.items())


def _draw_stages(strip: Axes, spans: Sequence[StageSpan]) -> None:
    """A numbered box for each stage, hatched from where it may be over."""
    readable = 0.02 * spans[-1].end
    for number, span in enumerate(spans, start=1):
        box = Rectangle((span.first, 0), span.end - span.first, 1, facecolor="white")
        box.set_edgecolor(_LINE)
        strip.add_patch(box)
        if span.open_from is not None:
            width = span.end - span.open_from
            strip.add_patch(Rectangle((span.open_from, 0), width, 1, fill=False, **_HATCHED))
        wide = [e for e in (span.open_from, span.end) if e and e - span.first >= readable]
        if wide:
            middle = (span.first + wide[0]) / 2
            text = strip.text(middle, 0.5, str(number), ha="center", va="center", fontsize=_SMALL)
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 2})
    strip.set_ylim(0, 1)
    strip.set_yticks([0.5], ["stage"], fontsize=_SMALL + 1)
    strip.tick_params(axis="both", length=0, labelbottom=False)
    strip.spines[:].set_visible(False)
