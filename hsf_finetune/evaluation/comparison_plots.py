"""Several models on the same cases, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hsf_finetune.evaluation.intervals import Interval
from hsf_finetune.evaluation.model_comparison import ModelFigures
from hsf_finetune.evaluation.score_tables import MEAN
from hsf_finetune.labels.label_colours import label_rows

_INK, _GREY, _SMALL = "#303030", "#b0b0b0", 8
_NEAR = 0.2
"""Largest distance from the best Dice that is drawn to scale, so that the axis stays readable."""


def draw_figures(figures: Sequence[ModelFigures], reference: str, title: str) -> Figure:
    """Dice with intervals, paired differences, seconds of training and what trained.

    Args:
        figures: one row each, from the top.
        reference: name of the model that differences refer to.
        title: heading.
    """
    height = 2.2 + 0.34 * len(figures)
    figure = Figure(figsize=(11, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    dice, change, seconds, share = figure.subplots(
        1, 4, sharey=True, gridspec_kw={"width_ratios": [3, 2.4, 1.4, 1.2]}
    )
    _draw_dice(dice, figures)
    _draw_differences(change, figures, reference)
    _draw_seconds(seconds, figures)
    _draw_share(share, figures)
    dice.set_yticks(range(len(figures)), [one.model.name for one in figures], fontsize=9)
    dice.set_ylim(len(figures) - 0.5, -0.5)
    for axis in (dice, change, seconds, share):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=_SMALL)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="y", color="#ececec", zorder=0)
    dice.tick_params(axis="y", labelsize=9)
    figure.suptitle(title, fontsize=10, color=_INK)
    return figure


def _draw_dice(axis: Axes, figures: Sequence[ModelFigures]) -> None:
    names = [name for name in figures[0].classes if name != MEAN]
    drawn = _dots(axis, {row: one.dice for row, one in enumerate(figures)})
    rows = label_rows({"": 0, **dict.fromkeys(names, 0)}, {}) if len(names) > 1 else ()
    for one in rows:
        means = [figures[row].classes[one.name].dice.mean for row in drawn]
        axis.scatter(means, drawn, s=14, color=one.hex, alpha=0.8, label=one.name, zorder=2)
    if len(names) > 1:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=7, frameon=False)
    axis.set_xlabel("Dice (black: mean of the classes)", fontsize=_SMALL)


def _draw_differences(axis: Axes, figures: Sequence[ModelFigures], reference: str) -> None:
    axis.axvline(0, color=_GREY, linewidth=1, zorder=1)
    rows = {row: one.differences[MEAN] for row, one in enumerate(figures) if one.differences}
    _dots(axis, rows, sign="+")
    axis.set_xlabel(f"paired difference of Dice to\n{reference}", fontsize=_SMALL)


def _draw_seconds(axis: Axes, figures: Sequence[ModelFigures]) -> None:
    kinds = set()
    for row, one in enumerate(figures):
        cost = one.model.cost
        for kind, colour in (("CPU", "#7a9cc6"), ("GPU", "#c69a7a")) if cost else ():
            seconds = getattr(cost, f"{kind.lower()}_seconds")
            if not math.isnan(seconds):
                kinds.add(kind)
                axis.barh(row, seconds, height=0.5, color=colour, zorder=2)
                break
    axis.set_xlabel(f"{' or '.join(sorted(kinds)) or 'no'} seconds\nof training", fontsize=_SMALL)


def _draw_share(axis: Axes, figures: Sequence[ModelFigures]) -> None:
    for row, one in enumerate(figures):
        if one.model.cost is None or math.isnan(one.model.cost.peak_share):
            continue
        peak, mean = 100 * one.model.cost.peak_share, 100 * one.model.cost.mean_share
        axis.barh(row, peak, height=0.5, color="#d7e3d4", zorder=2)
        axis.barh(row, mean, height=0.5, color="#86b07f", zorder=3)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of parameters\nthat train (light:\npeak, dark: mean)", fontsize=_SMALL)


def _dots(axis: Axes, rows: Mapping[int, Interval], sign: str = "") -> list[int]:
    """A dot and its interval in each row; one far below the others as a number at the edge.

    Returns:
        The rows that have a dot.
    """
    known = {row: one for row, one in rows.items() if not math.isnan(one.mean)}
    best = max((one.mean for one in known.values()), default=0.0)
    near = {row: one for row, one in known.items() if one.mean > best - _NEAR}
    for row, one in near.items():
        if not math.isnan(one.low):
            axis.plot([one.low, one.high], [row, row], color=_INK, linewidth=1.4, zorder=3)
        axis.plot([one.mean], [row], "o", color=_INK, markersize=4.5, zorder=4)
    for row, one in known.items():
        if row not in near:
            where = axis.get_yaxis_transform()
            text = f"\u25c2 {one.mean:{sign}.3f}"
            axis.text(0.02, row, text, transform=where, va="center", fontsize=_SMALL, color=_INK)
    return [*near]
