"""Every drawing of a report shows the numbers of the run's tables, recomputed here from the files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student

from hsf_finetune.evaluation.compare_runs import compare_runs
from hsf_finetune.evaluation.comparison_plots import draw_figures
from hsf_finetune.evaluation.reliability import read_reliability
from hsf_finetune.evaluation.score_tables import read_scores
from hsf_finetune.evaluation.volume_agreement import agree_in_volume
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.report import figures
from hsf_finetune.training.metrics_file import read_metrics

CLASSES = ("anterior", "posterior")
Floats = npt.NDArray[np.float64]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def column(rows: Iterable[dict[str, str]], name: str) -> Floats:
    return np.array([float(row[name] or "nan") for row in rows])


def dice_of(file: Path) -> dict[str, Floats]:
    """Dice of each class, and the mean of the classes, case by case."""
    rows = rows_of(file)
    parts = {name: column([r for r in rows if r["class"] == name], "dice") for name in CLASSES}
    return {**parts, "mean": np.nanmean([*parts.values()], axis=0)}


def interval(values: Floats, low: float = -1.0, high: float = 1.0) -> Floats:
    """Mean and 95 % interval of Student's t, as for fewer than eight subjects of one case."""
    width = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    ends = [values.mean(), values.mean() - width, values.mean() + width]
    return np.clip(ends, low, high)


def drawn_rows(axis: Axes, hollow: bool = False) -> dict[int, list[float]]:
    """Row -> the mean of its dot and the ends of its interval, where there is one."""
    found: dict[int, list[float]] = {}
    for line in axis.lines:
        x, y = line.get_xdata(), line.get_ydata()
        is_dot, is_hollow = line.get_marker() == "o", line.get_markerfacecolor() == "white"
        if is_dot and is_hollow == hollow:
            found.setdefault(int(y[0]), []).insert(0, x[0])
        elif not is_dot and len(x) == 2 and y[0] == y[1] and line.get_linewidth() < 2:
            found.setdefault(int(y[0]), []).extend(x)
    return found


def is_on_page(figure: Figure, run: Path) -> bool:
    return figures.to_svg(figure, "").split(">", 1)[1] in (run / "report.html").read_text("utf-8")


@pytest.fixture
def colours(run: Path) -> dict[str, str]:
    return figures.colours_of(CLASSES, Predictor.load(run, device="cpu").card)


def test_dice_and_its_change(run: Path, colours: dict[str, str]) -> None:
    files = [run / f"{name}_scores.csv" for name in ("pretrained", "validation")]
    figure = figures.draw_change(*map(read_scores, files), colours)
    before, after = map(dice_of, files)
    old = drawn_rows(figure.axes[0], hollow=True)
    new, change = map(drawn_rows, figure.axes)
    for row, name in enumerate((*CLASSES, "mean")):
        assert old[row][0] == pytest.approx(before[name].mean())
        assert new[row] == pytest.approx(interval(after[name], low=0))
        assert change[row] == pytest.approx(interval(after[name] - before[name]))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [*CLASSES, "mean"]
    assert is_on_page(figure, run)


def test_learning_curves_and_the_rates_below_them(run: Path, colours: dict[str, str]) -> None:
    blocks = json.loads((run / "schedule.json").read_text())["blocks"]
    figure = figures.draw_learning(read_metrics(run / "metrics.csv"), colours, blocks[::-1])
    table = rows_of(run / "metrics.csv")
    dice, loss, rates = figure.axes[:3]
    expected = {**{name: f"val/dice/{name}" for name in CLASSES}, "mean": "val/dice"}
    expected |= {"training": "train/loss", "validation": "val/loss"}
    for line in (*dice.lines, *loss.lines):
        if (name := str(line.get_label())) == "before":
            assert line.get_ydata()[0] == pytest.approx(column(table, "val/dice_pretrained")[0])
            continue
        assert [*line.get_xdata()] == [int(row["epoch"]) + 1 for row in table]
        np.testing.assert_allclose(line.get_ydata(), column(table, expected.pop(name)))
    assert not expected
    names = [text.get_text() for text in rates.get_yticklabels()]
    assert names == blocks[::-1]
    assert {f"schedule/lr/{name}" for name in names} == {n for n in table[0] if "/lr/" in n}
    shown = rates.images[0].get_array().filled(0)
    np.testing.assert_allclose(shown, [column(table, f"schedule/lr/{name}") for name in names])
    assert is_on_page(figure, run)


def test_curves_connect_the_epochs_that_were_validated(run: Path) -> None:
    rows = read_metrics(run / "metrics.csv")
    rows = [row | {"epoch": str(epoch)} for epoch, row in enumerate([rows[0]] * 5)]
    for row in rows[::2]:
        row["val/dice"] = row["val/loss"] = ""
    dice, loss = figures.draw_learning(rows, {}).axes[:2]
    lines = {str(line.get_label()): [*line.get_xdata()] for line in (*dice.lines, *loss.lines)}
    assert lines["mean"] == lines["validation"] == [2, 4]
    assert lines["training"] == [1, 2, 3, 4, 5]


def test_volumes_against_truth(run: Path, colours: dict[str, str]) -> None:
    file = run / "validation_scores.csv"
    figure = figures.draw_volumes(agree_in_volume(read_scores(file)), colours)
    for axis, name in zip(figure.axes, CLASSES, strict=True):
        rows = [row for row in rows_of(file) if row["class"] == name]
        truth, predicted = (column(rows, f"volume_{w}_mm3") for w in ("truth", "predicted"))
        difference = predicted - truth
        zero, dots, mean, low, high = axis.lines
        np.testing.assert_allclose(dots.get_xdata(), (truth + predicted) / 2)
        np.testing.assert_allclose(dots.get_ydata(), difference)
        spread = 1.96 * difference.std(ddof=1)
        wanted = [0, *(difference.mean() + k * spread for k in (0, -1, 1))]
        assert [line.get_ydata()[0] for line in (zero, mean, low, high)] == pytest.approx(wanted)
        assert axis.get_title() == name
    assert is_on_page(figure, run)


def test_reliability(run: Path) -> None:
    figure = figures.draw_reliability(read_reliability(run / "calibration.csv"))
    for axis, when in zip(figure.axes, ("before", "after"), strict=True):
        rows = [row for row in rows_of(run / "calibration.csv") if row["when"] == when]
        voxels, sure, right = (column(rows, n) for n in ("voxels", "confidence", "accuracy"))
        np.testing.assert_allclose(axis.lines[1].get_xdata(), sure)
        np.testing.assert_allclose(axis.lines[1].get_ydata(), right)
        heights = [bar.get_height() for bar in axis.patches]
        np.testing.assert_allclose(heights, voxels / voxels.sum())
        error = np.nansum(voxels * abs(right - sure)) / voxels.sum()
        assert axis.get_title() == f"{when}: error {error:.4f}"
    assert is_on_page(figure, run)


def test_comparison_of_runs(run: Path) -> None:
    compared = compare_runs([run], side="validation")
    drawn = draw_figures(compared.figures, compared.reference, compared.title)
    names = [one.model.name for one in compared.figures]
    files = {name: run / "pretrained_scores.csv" for name in names}
    files[compared.reference] = run / "validation_scores.csv"
    scores = {name: dice_of(file)["mean"] for name, file in files.items()}
    assert len(names) == 2
    cost = column(rows_of(run / "metrics.csv"), "cost/train_cpu_s").sum()
    dice, change, seconds, _ = drawn.axes
    far = {int(text.get_position()[1]): text.get_text() for text in dice.texts}
    for row, name in enumerate(names):
        if row in far:  # a number at the edge
            assert far[row].endswith(f" {scores[name].mean():.3f}")
        else:
            assert drawn_rows(dice)[row] == pytest.approx(interval(scores[name], low=0))
        if name != compared.reference:
            wanted = interval(scores[name] - scores[compared.reference])
            assert drawn_rows(change)[row] == pytest.approx(wanted)
    assert [bar.get_width() for bar in seconds.patches] == pytest.approx([cost], rel=1e-3)
