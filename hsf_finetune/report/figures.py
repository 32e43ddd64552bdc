"""Drawings of the report, as figures of Matplotlib and as SVG inside a page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2s
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hsf_finetune.evaluation.reliability import BINS, Reliability
from hsf_finetune.evaluation.score_tables import MEAN, ScoreRow, paired_differences, summarise
from hsf_finetune.evaluation.volume_agreement import VolumeAgreement
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.labels.label_colours import label_rows
from hsf_finetune.schedule.display.schedule_picture import FROZEN
from hsf_finetune.system.console import show_controls

_INK, _GREY, _LIGHT, _SMALL = "#303030", "#6a6a6a", "#e4e4e4", 8
_RATES = "schedule/lr/"
_NAME = re.compile(r'(\bid="|href="#|url\(#)')


def colours_of(names: Iterable[str], card: ModelCard | None = None) -> dict[str, str]:
    """The colour of each class or set, `#rrggbb`.

    Args:
        names: of what is scored, without the background.
        card: of the model, whose colours its segmentations have; what it does not name, and
            everything without one, has a colour of the palette.
    """
    known = {row.name: row.colour for row in card.label_rows} if card else {}
    rows = label_rows({"": 0, **dict.fromkeys(names, 0)}, known)
    return {row.name: row.hex for row in rows}


def to_svg(figure: Figure, text: str) -> str:
    """The figure as an SVG element.

    Args:
        figure: of Matplotlib.
        text: what it shows, for those who cannot see it.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    # Elements of several pictures in one page must not have the same name.
    own = blake2s(svg.encode(), digest_size=4).hexdigest()
    svg = _NAME.sub(lambda found: f"{found[1]}p{own}-", svg)
    size = re.compile(r' (?:width|height)="[^"]*pt"')
    head, rest = svg.split(">", 1)
    return f'{size.sub("", head)} role="img" aria-label="{escape(show_controls(text))}">{rest}'


def draw_change(
    before: Sequence[ScoreRow], after: Sequence[ScoreRow], colours: Mapping[str, str]
) -> Figure:
    """Dice of each class before (hollow) and after (filled), and the paired change.

    Args:
        before: scores of the model started from; empty for random weights.
        after: scores of the trained model.
        colours: of the classes.
    """
    summaries = summarise(after)
    summaries = summaries[:1] if len(summaries) == 2 else summaries
    old = {one.class_name: one.dice for one in summarise(before)}
    changes = paired_differences(before, after) if before else {}
    columns = 2 if before else 1
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(summaries)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, columns, sharey=True))
    for row, one in enumerate(summaries):
        first = old.get(one.class_name)
        ink = colours.get(one.class_name, _INK)
        if first is not None and not math.isnan(first.mean):
            axes[0].plot([first.mean, one.dice.mean], [row, row], color=_LIGHT, linewidth=3)
            axes[0].plot([first.mean], [row], "o", mfc="white", mec=_GREY, ms=5)
        _draw_interval(axes[0], row, one.dice, ink)
        if one.class_name in changes:
            _draw_interval(axes[1], row, changes[one.class_name], ink)
    axes[0].set_yticks(range(len(summaries)), [one.class_name for one in summaries])
    axes[0].set_ylim(len(summaries) - 0.5, -0.5)
    axes[0].set_xlim(-0.02, 1.02)
    axes[0].set_xlabel("Dice" + (" (hollow: before)" if before else ""), fontsize=_SMALL)
    if before:
        axes[1].axvline(0, color=_GREY, linewidth=1)
        axes[1].set_xlabel("change of Dice, with 95 % interval", fontsize=_SMALL)
    _tidy(axes)
    return figure


def draw_learning(
    metrics: Sequence[Mapping[str, str]], colours: Mapping[str, str], order: Sequence[str] = ()
) -> Figure:
    """Validation Dice and losses over epochs, and below them which block trained at which rate.

    Args:
        metrics: rows of metrics.csv.
        colours: of the classes.
        order: of the blocks from the top; those that it does not name come last.
    """
    logged = [name for name in metrics[-1] if name.startswith(_RATES)]
    blocks = [name for block in order if (name := f"{_RATES}{block}") in logged]
    blocks += [name for name in logged if name not in blocks]
    heights = [2.0, 1.2, 0.25 + 0.16 * len(blocks)]
    figure = Figure(figsize=(8, sum(heights) + 0.8), layout="constrained")
    dice, loss, rates = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    for name, colour in colours.items() if len(colours) > 1 else ():
        _draw_column(dice, metrics, f"val/dice/{name}", color=colour, lw=1, label=name)
    _draw_column(dice, metrics, "val/dice", color=_INK, lw=2, label=MEAN)
    started = _column(metrics, "val/dice_pretrained")
    if not np.isnan(started).all():
        dice.axhline(np.nanmean(started), color=_GREY, ls="--", lw=1, label="before")
    dice.set_ylabel("validation Dice", fontsize=_SMALL)
    dice.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=_SMALL, frameon=False)
    for name, style in (("train/loss", "-"), ("val/loss", "--")):
        label = "training" if name.startswith("train") else "validation"
        _draw_column(loss, metrics, name, ls=style, color=_INK, lw=1, label=label)
    loss.set_ylabel("loss", fontsize=_SMALL)
    loss.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=_SMALL, frameon=False)
    _draw_rates(figure, rates, metrics, blocks)
    _tidy([dice, loss])
    return figure


def draw_volumes(agreements: Sequence[VolumeAgreement], colours: Mapping[str, str]) -> Figure:
    """Differences of predicted and true volumes over their means, with limits of agreement."""
    columns = min(3, len(agreements))
    rows = math.ceil(len(agreements) / columns)
    figure = Figure(figsize=(8, 2.1 * rows + 0.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, one in zip(panels, agreements, strict=False):
        means = (one.truth_mm3 + one.predicted_mm3) / 2
        axis.axhline(0, color=_GREY, lw=0.8)
        colour = colours.get(one.class_name, _GREY)
        axis.plot(means, one.differences_mm3, "o", ms=4, color=colour, mec=_INK, mew=0.4)
        axis.axhline(float(one.differences_mm3.mean()), color=_INK, lw=1.2)
        for limit in one.limits_mm3 if len(means) > 1 else ():
            axis.axhline(limit, color=_INK, ls="--", lw=0.8)
        axis.set_title(one.class_name, fontsize=_SMALL + 1)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    for axis in panels[len(agreements) :]:
        axis.set_axis_off()
    figure.supxlabel("mean of true and predicted volume, mm3", fontsize=_SMALL)
    figure.supylabel("predicted less true, mm3", fontsize=_SMALL)
    _tidy(panels[: len(agreements)])
    return figure


def draw_reliability(found: Mapping[str, Reliability]) -> Figure:
    """How often the most probable class is right, over its probability, before and after.

    Args:
        found: `before` and `after` -> the reliability then.
    """
    figure = Figure(figsize=(8, 3.1), layout="constrained")
    for axis, (when, one) in zip(
        figure.subplots(1, len(found), sharey=True), found.items(), strict=True
    ):
        axis.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls="--")
        share = one.voxels / max(one.voxels.sum(), 1)
        axis.bar((np.arange(BINS) + 0.5) / BINS, share, 0.9 / BINS, color=_LIGHT)
        axis.plot(one.confidence, one.accuracy, "-o", color=_INK, ms=4, lw=1)
        axis.set_title(f"{when}: error {one.ece:.4f}", fontsize=_SMALL + 1)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("probability of the most probable class", fontsize=_SMALL)
    figure.axes[0].set_ylabel("share of voxels that are right", fontsize=_SMALL)
    _tidy(figure.axes)
    return figure


def _draw_rates(
    figure: Figure, axis: Axes, metrics: Sequence[Mapping[str, str]], blocks: Sequence[str]
) -> None:
    """One row per block; the colour is its learning rate, grey where it is frozen."""
    rates = np.nan_to_num(np.array([_column(metrics, name) for name in blocks]))
    epochs = [int(row["epoch"]) for row in metrics]
    extent = (min(epochs) + 0.5, max(epochs) + 1.5, len(blocks), 0)
    highest = max(float(rates.max()), 1e-12) if rates.size else 1e-12
    image = axis.imshow(
        np.ma.masked_less_equal(rates, 0),
        norm=LogNorm(highest / 100, highest),
        cmap=mpl.colormaps["viridis"].with_extremes(bad=FROZEN, under=mpl.colormaps["viridis"](0)),
        aspect="auto",
        interpolation="nearest",
        extent=extent,
    )
    bar = figure.colorbar(image, ax=axis, pad=0.01, fraction=0.04, aspect=8)
    bar.ax.tick_params(labelsize=_SMALL - 1)
    bar.set_label("rate", fontsize=_SMALL)
    names = [name.removeprefix(_RATES) for name in blocks]
    axis.set_yticks(np.arange(len(blocks)) + 0.5, names, fontsize=_SMALL - 1)
    axis.tick_params(axis="both", length=0, labelsize=_SMALL)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.set_xlabel("epoch (grey: the block is frozen)", fontsize=_SMALL)
    axis.spines[:].set_visible(False)


def _draw_interval(axis: Axes, row: int, interval: Any, colour: str) -> None:
    if math.isnan(interval.mean):
        return
    if not math.isnan(interval.low):
        axis.plot([interval.low, interval.high], [row, row], color=_INK, lw=1.3)
    axis.plot([interval.mean], [row], "o", color=colour, mec=_INK, mew=0.6, ms=6, zorder=3)


def _draw_column(axis: Axes, metrics: Sequence[Mapping[str, str]], name: str, **style: Any) -> None:
    """A line through the epochs that have a value: not all may be validated."""
    values = _column(metrics, name)
    known = ~np.isnan(values)
    epochs = np.array([int(row["epoch"]) + 1 for row in metrics])
    if known.any():
        axis.plot(epochs[known], values[known], **style)


def _column(metrics: Sequence[Mapping[str, str]], name: str) -> np.ndarray[Any, Any]:
    return np.array([float(row.get(name) or "nan") for row in metrics])


def _tidy(axes: Iterable[Axes]) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=_SMALL)
        axis.grid(color="#ececec", linewidth=0.6)
        axis.set_axisbelow(True)
