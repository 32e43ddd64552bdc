"""Several models on the same cases: figures, tables, CSV and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from hsf_finetune.evaluation.intervals import Interval
from hsf_finetune.evaluation.score_tables import (
    MEAN,
    ClassSummary,
    ScoreRow,
    format_interval,
    format_number,
    interval_note,
    paired_differences,
    summarise,
)
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_csv
from hsf_finetune.training.training_cost import TrainingCost

_SHARES = ("peak_share", "mean_share")
_COUNTS = ("epochs", "steps", "cpu_seconds", "gpu_seconds", "validation_seconds")


@dataclass(frozen=True)
class ComparedModel:
    """One of the models that are compared.

    Args:
        name: unique among them.
        scores: of every case and class.
        cost: of its training; None for a model that was not trained.
        folder: of its run; None likewise.
    """

    name: str
    scores: tuple[ScoreRow, ...]
    cost: TrainingCost | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class ModelFigures:
    """Figures of a model.

    Args:
        model: the model.
        classes: class name (and `mean`) -> its summary over the cases.
        differences: class name (and `mean`) -> Dice less the reference's, over the cases
            that both have; empty for the reference itself.
    """

    model: ComparedModel
    classes: dict[str, ClassSummary]
    differences: dict[str, Interval] = field(default_factory=dict)

    @property
    def dice(self) -> Interval:
        """Mean Dice over classes and cases."""
        return self.classes[MEAN].dice

    def to_dict(self, reference: str) -> dict[str, object]:
        """Every figure, those of each class with their intervals, for compare.json."""
        return {
            "run": self.model.name,
            "folder": self.model.folder,
            "classes": self.classes,
            f"less_{reference}": self.differences,
            "training": self.model.cost,
        }


def compare_models(models: Sequence[ComparedModel], reference: str) -> tuple[ModelFigures, ...]:
    """Every model's figures, and its paired differences to the reference.

    Intervals resample subjects (`bootstrap_interval`), each on its own: among many models
    one may seem better by chance.
    """
    against = next(model for model in models if model.name == reference)
    return tuple(
        ModelFigures(
            model,
            {summary.class_name: summary for summary in summarise(model.scores)},
            {} if model is against else paired_differences(against.scores, model.scores),
        )
        for model in models
    )


def judge_models(figures: Sequence[ModelFigures], reference: str) -> str:
    """Which model is better, the best one or the reference, and how sure that is, in a sentence.

    Where the best one is the reference, it is judged beside the next one.
    """
    ranked = sorted(figures, key=lambda one: -one.dice.mean)
    best, *others = [one for one in ranked if not math.isnan(one.dice.mean)] or ranked
    other = best if best.differences else next(iter(others), best)
    change = other.differences.get(MEAN)
    if change is None:
        return "There is nothing to compare."
    second = reference if other is best else other.model.name
    sign = 1 if other is best else -1
    low, high = sorted((sign * change.low, sign * change.high))
    text = f"{best.model.name} against {second}: Dice {sign * change.mean:+.3f}"
    if math.isnan(low):
        return f"{text}; one subject does not tell how sure that is."
    text += f", 95 % interval {low:+.3f} to {high:+.3f}"
    if low <= 0 <= high:
        return f"{text}: the difference may be chance; more subjects would tell."
    chance = f" Of {len(figures)}, one may be best by chance." if len(figures) > 2 else ""
    return f"{text}: {best.model.name} is better.{chance}"


def models_table(
    figures: Sequence[ModelFigures], reference: str, title: str, sentence: str
) -> Table:
    """One row per model: Dice, difference, what trained, and what it took; 110 columns at most.

    Args:
        figures: of every model.
        reference: name of the model that differences refer to.
        title: the cases, in words.
        sentence: which model is better, in words.
    """
    table = _make_table(title, f"{sentence}\n{_caption(figures)}")
    clocks = _clocks_used(figures)
    table.add_column("Dice", justify="right", no_wrap=True)
    table.add_column(Text(f"less {reference}"), justify="right", no_wrap=True)
    for heading in ("trains", "on average", "epochs", *clocks):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in figures:
        table.add_row(
            Text(one.model.name),
            format_interval(one.dice),
            format_interval(one.differences.get(MEAN), sign="+"),
            *_cost_cells(one.model.cost, clocks),
        )
    return table


def classes_table(figures: Sequence[ModelFigures]) -> Table:
    """One row per model and one column per class: mean Dice."""
    table = _make_table("Dice of each class")
    names = [name for name in figures[0].classes if name != MEAN]
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold", min_width=5)
    for one in figures:
        cells = (format_number(one.classes[name].dice.mean, ".3f") for name in names)
        table.add_row(Text(one.model.name), *cells)
    return table


def write_figures_csv(path: Path, figures: Sequence[ModelFigures], reference: str) -> None:
    """Writes one row per model; empty cells stand where there is no value.

    Raises:
        OutputError: the file cannot be written.
    """
    names = [name for name in figures[0].classes if name != MEAN]
    header = ["run", "dice", "dice_low", "dice_high", *(f"dice_{name}" for name in names)]
    header += [f"less_{reference}", f"less_{reference}_low", f"less_{reference}_high"]
    header += ["cases", "subjects", "trainable_share_peak", "trainable_share_mean"]
    header += [*_COUNTS, "folder"]
    rows: list[list[object]] = []
    for one in figures:
        dice, change, cost = one.dice, one.differences.get(MEAN), one.model.cost
        row: list[object] = [one.model.name, dice.mean, dice.low, dice.high]
        row += [one.classes[name].dice.mean for name in names]
        row += [change.mean, change.low, change.high] if change else [None] * 3
        row += [dice.n, dice.subjects]
        row += [getattr(cost, name, None) for name in (*_SHARES, *_COUNTS)]
        rows.append([*row, one.model.folder])
    write_csv(path, header, rows)


def _make_table(title: str, caption: str = "") -> Table:
    table = console.TitledTable(title, caption)
    table.add_column("run", overflow="fold", min_width=10, max_width=26)
    return table


def _caption(figures: Sequence[ModelFigures]) -> str:
    note = interval_note({one.model.name: one.dice for one in figures})
    return (
        f"Dice: mean over cases of each case's mean over its classes{note}.\n"
        "trains: largest share of the parameters in training, and its mean over epochs.\n"
        "s: of training alone, without validation and scoring."
    )


def _clocks_used(figures: Sequence[ModelFigures]) -> list[str]:
    """Which clocks any model was measured with: `cpu s`, `gpu s`."""
    costs = [one.model.cost for one in figures if one.model.cost]
    on_gpu = any(not math.isnan(cost.gpu_seconds) for cost in costs)
    on_cpu = any(not math.isnan(cost.cpu_seconds) for cost in costs)
    return [name for name, used in (("cpu s", on_cpu), ("gpu s", on_gpu)) if used]


def _cost_cells(cost: TrainingCost | None, clocks: Sequence[str]) -> list[str]:
    if cost is None:
        return ["-"] * (3 + len(clocks))
    seconds = {"cpu s": cost.cpu_seconds, "gpu s": cost.gpu_seconds}
    return [
        _format_share(cost.peak_share),
        _format_share(cost.mean_share),
        str(cost.epochs),
        *(format_number(seconds[clock], ".1f") for clock in clocks),
    ]


def _format_share(value: float) -> str:
    return "< 0.1%" if 0 < value < 0.001 else format_number(value, ".1%")
