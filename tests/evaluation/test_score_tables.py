"""Summaries count what they average, and tables fit a terminal of 100 columns."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from hsf_finetune.evaluation.metrics import ClassScore, Outcome
from hsf_finetune.evaluation.score_tables import (
    MEAN,
    ScoreRow,
    comparison_table,
    paired_differences,
    protocol_table,
    read_scores,
    summarise,
    summary_table,
    write_scores,
)
from hsf_finetune.system.errors import DataError, OutputError

NAN = math.nan


def row(
    case: str,
    name: str,
    dice: float,
    hd95_mm: float = 1.0,
    outcome: Outcome = "scored",
    error: float = 0.0,
    subject: str | None = None,
) -> ScoreRow:
    numbers = (dice, hd95_mm, dice, 100, 100 + error, error)
    score = ClassScore(name, outcome, *map(float, numbers))
    return ScoreRow(case, subject or case, score)


ROWS = [
    row("a", "CA1", 0.8, hd95_mm=1, error=10),
    row("a", "SUB", 0.6, hd95_mm=3, error=-30),
    row("b", "CA1", 0.6, hd95_mm=2, error=-20),
    row("b", "SUB", 0, NAN, "missed", error=-100),
    row("c", "CA1", 0.7, hd95_mm=9, error=1),
    row("c", "SUB", NAN, NAN, "absent", error=NAN),
    row("d", "CA1", 0, NAN, "false_positive", error=NAN),
    row("d", "SUB", 0.9, hd95_mm=1, error=0),
]


def render(table: Table, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_a_class_is_summed_up() -> None:
    ca1, sub, _ = summarise(ROWS)
    assert [ca1.class_name, sub.class_name] == ["CA1", "SUB"]
    assert ca1.dice.mean == pytest.approx((0.8 + 0.6 + 0.7 + 0) / 4)
    assert ca1.dice.low < ca1.dice.mean < ca1.dice.high
    assert ca1.hd95_mm == 2
    assert ca1.volume_error_percent == pytest.approx(-3)
    assert (ca1.scored, ca1.missed, ca1.false_positive, ca1.absent) == (3, 0, 1, 0)
    assert sub.dice.mean == pytest.approx((0.6 + 0 + 0.9) / 3)
    assert sub.dice.n == 3
    assert sub.nsd == pytest.approx(0.5)
    assert (sub.scored, sub.missed, sub.false_positive, sub.absent) == (2, 1, 0, 1)


def test_the_mean_is_over_classes_then_over_cases() -> None:
    mean = summarise(ROWS)[-1]
    assert mean.class_name == MEAN
    assert mean.dice.n == 4
    assert mean.dice.mean == pytest.approx((0.7 + 0.3 + 0.7 + 0.45) / 4)
    assert mean.hd95_mm == pytest.approx(2)
    assert (mean.scored, mean.missed, mean.false_positive, mean.absent) == (5, 1, 1, 1)


def test_the_caption_tells_the_kind_and_the_subjects_of_every_row() -> None:
    many = [row(f"s{n}", "CA1", 0.5 + n / 50) for n in range(12)]
    few = [row(f"s{n}", "KYST", 0.5 + n / 10) for n in range(3)]
    (alike,) = [line for line in render(summary_table(summarise(many))) if line.startswith("Dice:")]
    assert "[95 % bootstrap interval over 12 subjects]" in alike
    rows = [*many, *few, row("s0", "SUB", 0.4)]
    text = " ".join(render(summary_table(summarise(rows))))
    assert "bootstrap interval over 12 subjects; t interval over 3 subjects for KYST" in text
    assert "no interval from one subject for SUB" in text
    compared = " ".join(render(comparison_table(many, rows)))
    assert "change: over the cases with both" in compared
    before = [one for one in many if one.case in ("s0", "s1", "s2", "s3")]
    assert "t interval over 4 subjects" in " ".join(render(comparison_table(before, many)))
    (alone,) = [
        line for line in render(summary_table(summarise(many[:1]))) if line.startswith("Dice:")
    ]
    assert "(no interval from one subject)" in alone


def test_two_sides_of_one_person_are_one_observation() -> None:
    rows = [row(f"p_{side}", "CA1", d, subject="p") for side, d in (("L", 0.7), ("R", 0.9))]
    dice = summarise(rows)[0].dice
    assert dice.mean == pytest.approx(0.8)
    assert (dice.n, dice.subjects) == (2, 1)
    assert math.isnan(dice.low)


def test_nothing_and_nowhere() -> None:
    assert summarise([]) == []
    (nowhere, _) = summarise([row("a", "CA1", NAN, NAN, "absent", NAN)])
    assert math.isnan(nowhere.dice.mean)
    assert nowhere.absent == 1
    assert render(summary_table([]))


def test_the_csv_has_a_line_per_case_and_class(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    write_scores(path, ROWS)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == [
        "case",
        "subject",
        "dataset",
        "class",
        "outcome",
        "dice",
        "hd95_mm",
        "nsd",
        "volume_truth_mm3",
        "volume_predicted_mm3",
        "volume_error_percent",
    ]
    assert len(lines) == len(ROWS)
    assert (lines[1]["case"], lines[1]["class"], lines[1]["dice"]) == ("a", "SUB", "0.6")
    assert (lines[3]["outcome"], lines[3]["hd95_mm"]) == ("missed", "")


def test_scores_come_back_exactly(tmp_path: Path) -> None:
    rows = [*ROWS, row("third", "CA2/3, left", 1 / 3)]
    write_scores(tmp_path / "scores.csv", rows)
    back = read_scores(tmp_path / "scores.csv")
    # NaN differs from itself, its text does not.
    assert repr(back) == repr(rows)
    write_scores(tmp_path / "none.csv", [])
    assert read_scores(tmp_path / "none.csv") == []


@pytest.mark.parametrize("text", ["", "case,dice\na,1\n", "{header}a,a,CA1\n", "{row}x\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.csv"
    write_scores(path, ROWS[:1])
    whole = path.read_text()
    path.write_text(text.format(header=whole.splitlines(keepends=True)[0], row=whole.strip()))
    with pytest.raises(DataError, match=r"(?s)cannot read the scores.*scores\.csv"):
        read_scores(path)


def test_a_csv_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a folder"):
        write_scores(tmp_path, ROWS)


def test_differences_are_paired_by_case_and_class() -> None:
    after = [
        row("b", "CA1", 0.9),
        row("a", "CA1", 0.9),
        row("a", "SUB", 0.8),
        row("e", "CA1", 0.1),
        row("a", "DG", 0.5),
    ]
    change = paired_differences(ROWS, after)
    assert change["CA1"].mean == pytest.approx((0.1 + 0.3) / 2)
    assert change["CA1"].n == 2
    assert change["SUB"].mean == pytest.approx(0.2)
    assert change["DG"].n == 0
    assert change[MEAN].mean == pytest.approx(((0.1 + 0.2) / 2 + 0.3) / 2)
    assert change[MEAN].n == 2


def test_pairing_takes_the_spread_between_cases_away() -> None:
    spread = np.random.default_rng(4).random(20)
    before = [row(str(k), "CA1", float(dice)) for k, dice in enumerate(0.5 * spread)]
    after = [row(str(k), "CA1", float(dice)) for k, dice in enumerate(0.5 * spread + 0.01)]
    assert paired_differences(before, after)["CA1"].low > 0.009
    assert paired_differences(after, before)["CA1"].high < -0.009


def test_no_difference_to_itself() -> None:
    for interval in paired_differences(ROWS, ROWS).values():
        assert (interval.mean, interval.low, interval.high) == (0, 0, 0)


LONG = [
    row(case, f"{name}-of-the-left-hippocampus", d, 12.34, error=-123.4)
    for case, d in (("a", 0.71), ("b", 0.88))
    for name in ("stratum-radiatum-and-moleculare", "[bold]subiculum[/bold]")
]


def test_the_summary_fits_a_hundred_columns() -> None:
    lines = render(summary_table(summarise(LONG), title="[test] set"))
    text = "\n".join(lines)
    assert max(map(len, lines)) < 100
    assert "\u2026" not in text
    assert "[test] set" in text
    assert "[bold]subiculum[" in text
    assert text.count("0.795 [") == 3
    assert "-123.4" in text
    assert "over 2 subjects" in text


def test_the_comparison_fits_a_hundred_columns() -> None:
    titles = ("pretrained [model], epoch 120 of a long run", "fine-tuned")
    lines = render(comparison_table(ROWS, [*ROWS, row("a", "DG", 0.5)], titles))
    assert max(map(len, lines)) < 100
    assert "\u2026" not in "\n".join(lines)
    (ca1,) = (line for line in lines if line.startswith("CA1"))
    (dg,) = (line for line in lines if line.startswith("DG"))
    assert ca1.count("0.525 [") == 2
    assert "+0.000 [+0.000, +0.000]" in ca1
    assert dg.split() == ["DG", "-", "0.500", "-"]
    assert lines.index(dg) < next(i for i, line in enumerate(lines) if line.startswith(MEAN))


def test_a_single_class_needs_no_mean_row() -> None:
    summaries = summarise([row("a", "CA1", 0.5), row("b", "CA1", 0.7)])
    assert [s.class_name for s in summaries] == ["CA1", MEAN]
    assert summary_table(summaries).row_count == 1
    assert summary_table(summarise(ROWS)).row_count == 3


def test_datasets_with_protocols_of_their_own_stand_side_by_side() -> None:
    assert protocol_table(ROWS) is None
    fine = [replace(r, dataset="fine") for r in ROWS]
    merged = [replace(row("m", "CA2/3", 0.5), dataset="merged")]
    table = protocol_table([*fine, *merged])
    assert table is not None
    lines = [line.split() for line in render(table)]
    assert ["class", "fine", "merged"] in lines
    assert ["CA1", "0.525", "(4)", "-"] in lines
    assert ["SUB", "0.500", "(3)", "-"] in lines
    assert ["CA2/3", "-", "0.500", "(1)"] in lines
    (mean,) = (line for line in lines if line[:1] == ["mean"] and line[1][0].isdigit())
    assert float(mean[1]) == pytest.approx((0.7 + 0.3 + 0.7 + 0.45) / 4, abs=1e-3)
    assert mean[2:] == ["(4)", "0.500", "(1)"]
