"""What a transferred head is worth on real MRI: split by class name, beside a fresh one.

    python benchmarks/head_transfer.py --data ../shared/data/msd_hippocampus --json head.json

The source model of msd_hippocampus.py (one class, hippocampus) is fine-tuned on n subjects to
anterior and posterior, every block from the first step on. The trunk is transferred in both arms;
the head is that of hippocampus, split (`finetuning.derive_from`), or starts fresh
(`finetuning.head=fresh`); `_even` heads train at the rate of the other blocks, not at ten times
that rate. Each seed takes n other `finetune` subjects, the same for both arms,
as far as there are.

dice_start, dice_quarter and dice_end are of the validation subjects: before any step, after a
quarter of the steps and after all. Nothing is chosen on them: the last epoch is kept, and scored on
the subjects of --score-on as well. A long run can be interrupted: rows that are in
--json are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msd_hippocampus import COMMON, SPLIT_HEAD, data_overrides, numbers, train_source
from rows import measured, show
from strategies import cases_named, finished, over_seeds, same_setting, shown, steps, subjects

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.intervals import bootstrap_interval
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import MEAN, ScoreRow, read_scores, summarise
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor

FRESH_HEAD, EVEN = "finetuning.head=fresh", "finetuning.lr_factors={head: 1}"
HEADS: Mapping[str, tuple[str, ...]] = {
    "split": (SPLIT_HEAD,),
    "fresh": (FRESH_HEAD,),
    "split_even": (SPLIT_HEAD, EVEN),
    "fresh_even": (FRESH_HEAD, EVEN),
}
"""What each arm says of the head."""
SCORES = ("dice_start", "dice_quarter", "dice_end")

Row = dict[str, Any]


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads(options.split.read_text())
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        source = cache(lambda: options.source or train_source(options, split, work))
        rows = measured(
            options.json,
            lambda there: missing(options, there),
            lambda wanted: measure(options, split, work, source(), wanted),
        )
    chosen = [row for row in rows if same_setting(options, row) and row["n"] in options.n]
    show(
        f"validation and {options.score_on} subjects, {steps(options)} steps",
        [summary([r for r in chosen if r["n"] == n], n, head) for n in options.n for head in HEADS],
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--split", type=Path, help="default: split.json in --data")
    parser.add_argument("--n", type=numbers, default=[1, 5, 16], help="such as 1,5,16")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="such as 0,1,2")
    parser.add_argument("--steps", type=int, default=120, help="of each run")
    parser.add_argument("--epochs", type=int, default=12, help="that these make up; 4, 8, 12, ...")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--source", type=Path, help="run folder of a source model made before")
    parser.add_argument("--source-steps", type=int, default=2000)
    parser.add_argument("--score-on", default="test", help="side of the split that is scored")
    parser.add_argument("--work", type=Path, help="keep the runs in this folder")
    parser.add_argument("--json", type=Path, help="rows, written as they come")
    options = parser.parse_args()
    if options.epochs % 4:
        parser.error("--epochs should be a multiple of 4, for a score after a quarter of them")
    options.split = options.split or options.data / "split.json"
    return options


def missing(options: argparse.Namespace, rows: Sequence[Row]) -> Iterable[Row]:
    """What is to be measured and is not among the rows, seed by seed."""
    there = {(row["head"], row["n"], row["seed"]) for row in rows if same_setting(options, row)}
    length = {"steps": steps(options), "epochs": options.epochs, "score_on": options.score_on}
    for n in options.n:
        for seed in options.seeds:
            for head in HEADS:
                if (head, n, seed) not in there:
                    yield {"head": head, "n": n, "seed": seed, **length}


# ------------------------------------------------------------------------ measuring
def measure(
    options: argparse.Namespace, split: dict[str, Any], work: Path, source: Path, wanted: Row
) -> Row:
    """Trains one arm, and scores it on its way and at its end."""
    settings = settings_of(options, split, work, source, wanted)
    folder = finished(work, settings) or run_experiment(settings).folder
    scores = score_cases(
        Predictor.load(folder, device="cpu"), cases_named(settings, split[options.score_on])
    )
    by_case: dict[str, list[float]] = {}
    for row in scores:
        by_case.setdefault(row.case, []).append(row.score.dice)
    return {
        "dice_start": mean_dice(read_scores(folder / "pretrained_scores.csv")),
        "dice_quarter": validated(folder, steps(options) // 4),
        "dice_end": mean_dice(read_scores(folder / "validation_scores.csv")),
        "dice_scored": mean_dice(scores),
        "cases": {case: round(float(np.nanmean(dice)), 5) for case, dice in by_case.items()},
    }


def settings_of(
    options: argparse.Namespace, split: dict[str, Any], work: Path, source: Path, wanted: Row
) -> Settings:
    head, n, seed = wanted["head"], wanted["n"], wanted["seed"]
    cases = subjects(split, n, seed)
    return compose(
        "finetune",
        [
            *COMMON,
            "finetuning=full",
            *data_overrides(options, split, work, f"{head}_{n}_{seed}", cases),
            f"datasets.k_sample={2 * (options.steps // options.epochs)}",
            f"lightning.max_epochs={options.epochs}",
            "finetuning.budget=fixed",
            f"finetuning.pretrained={source}",
            *HEADS[head],
            f"seed={seed}",
        ],
    )


def mean_dice(rows: Iterable[ScoreRow]) -> float:
    """Mean over classes, then over cases."""
    (mean,) = (one.dice.mean for one in summarise(rows) if one.class_name == MEAN)
    return round(mean, 4)


def validated(folder: Path, step: int) -> float:
    """Dice of the validation after so many steps."""
    with (folder / "metrics.csv").open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if int(row["step"]) == step)
    return round(float(row["val/dice"]), 4)


# ---------------------------------------------------------------------- summarising
def summary(rows: Sequence[Row], n: int, head: str) -> Row:
    """One line of the table: means over seeds (and their sd), an interval over subjects."""
    mine = [row for row in rows if row["head"] == head]
    other = over_seeds([row for row in rows if row["head"] == "fresh"])
    dice = over_seeds(mine)
    shared = sorted(dice.keys() & other.keys())
    change = [dice[case] - other[case] for case in shared]
    return {
        "n": n,
        "head": head,
        "seeds": len(mine),
        **{name.removeprefix("dice_"): with_sd([row[name] for row in mine]) for name in SCORES},
        "scored": shown(bootstrap_interval(list(dice.values()), [*dice])),
        "less fresh": "-" if head == "fresh" else shown(bootstrap_interval(change, shared), "+"),
    }


def with_sd(values: Sequence[float]) -> str:
    """Mean and, of several values, their standard deviation."""
    if len(values) < 2:
        return f"{np.mean(values):.3f}" if values else "-"
    return f"{np.mean(values):.3f} (sd {np.std(values, ddof=1):.3f})"


if __name__ == "__main__":
    main()
