"""Every fine-tuning preset on real MRI, beside random weights and the untouched model.

    python benchmarks/strategies.py --data ../shared/data/msd_hippocampus --json strategies.json

The source model of msd_hippocampus.py (one class, hippocampus) is fine-tuned on n subjects to
anterior and posterior, with each preset, for as many steps, validated every epoch. Each
seed takes n other `finetune` subjects, the same for all presets, as far as there are. The best
epoch by validation is scored on subjects that nothing is chosen on.

Beside the presets there are the settings of `VARIANTS`, each with the default preset: mixup,
CutMix, label smoothing, and rates that fall otherwise than along a cosine.

Presets that count in epochs are laid out for some 50; `in_proportion` scales them to the length
of the runs here. A long run can be interrupted: rows that are in --json are not measured again.
cpu_s is the processor time of training alone, averaged over seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msd_hippocampus import COMMON, SPLIT_HEAD, data_overrides, numbers, train_source
from rows import measured, show

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import FinetuningSettings, Settings
from hsf_finetune.data.discovery.cases import Case, discover
from hsf_finetune.evaluation.compare_runs import FROM_SCRATCH
from hsf_finetune.evaluation.intervals import Interval, bootstrap_interval
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import MEAN, summarise
from hsf_finetune.experiment.presets import DEFAULT, PRESETS
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.setup import prepare
from hsf_finetune.training.training_cost import read_cost

UNTOUCHED = "pretrained"
STAGES = 4
"""Of the default preset and network: the head, and three decoder blocks."""
PRESET_LR = 1e-3
"""What the rates of the staged preset are laid out for."""
VARIANTS = {
    "smoothing": ["models.label_smoothing=0.1"],
    "mixup": ["augmentation.mixup_p=0.5"],
    "cutmix": ["augmentation.cutmix_p=0.5"],
    "poly": ["finetuning.lr_schedule=poly"],
    "step": ["finetuning.lr_schedule=step"],
    "plateau": ["finetuning.lr_schedule=plateau"],
}
"""Arm -> what it changes of the default preset."""

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
    for n in options.n:
        mine = [row for row in rows if row["n"] == n and same_setting(options, row)]
        table = [summary(mine, arm) for arm in [UNTOUCHED, *options.presets]]
        show(f"n = {n}, {options.score_on} subjects, {steps(options)} steps", table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--split", type=Path, help="default: split.json in --data")
    parser.add_argument(
        "--presets", type=lambda text: text.split(","), default=[*PRESETS, *VARIANTS]
    )
    parser.add_argument("--n", type=numbers, default=[5, 16], help="such as 5,16")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="such as 0,1,2")
    parser.add_argument("--steps", type=int, default=120, help="of each run")
    parser.add_argument("--epochs", type=int, default=12, help="that these steps make up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--source", type=Path, help="run folder of a source model made before")
    parser.add_argument("--source-steps", type=int, default=2000)
    parser.add_argument("--score-on", default="test", help="side of the split that is scored")
    parser.add_argument("--work", type=Path, help="keep the runs in this folder")
    parser.add_argument("--json", type=Path, help="rows, written as they come")
    options = parser.parse_args()
    options.split = options.split or options.data / "split.json"
    return options


# ----------------------------------------------------------------- what to measure
def steps(options: argparse.Namespace) -> int:
    return int(options.steps // options.epochs * options.epochs)


def missing(options: argparse.Namespace, rows: Sequence[Row]) -> Iterable[Row]:
    """What is to be measured and is not among the rows, seed by seed."""
    there = {(row["arm"], row["n"], row["seed"]) for row in rows if same_setting(options, row)}
    for n in options.n:
        # The untouched model depends neither on n nor on the seed, but belongs to each table.
        arms = [(UNTOUCHED, 0), *((p, seed) for seed in options.seeds for p in options.presets)]
        for arm, seed in arms:
            if (arm, n, seed) not in there:
                length = {"steps": steps(options), "epochs": options.epochs}
                yield {"arm": arm, "n": n, "seed": seed, **length, "score_on": options.score_on}


def same_setting(options: argparse.Namespace, row: Row) -> bool:
    """Whether a row was measured with these options."""
    wanted = (steps(options), options.epochs, options.score_on)
    return (row["steps"], row["epochs"], row["score_on"]) == wanted and row["seed"] in options.seeds


# ------------------------------------------------------------------------ measuring
def measure(
    options: argparse.Namespace, split: dict[str, Any], work: Path, source: Path, wanted: Row
) -> Row:
    """Trains one arm, unless it is the untouched model, and scores it."""
    settings = settings_of(options, split, work, source, wanted)
    cost = None
    if wanted["arm"] == UNTOUCHED:
        predictor = untouched(settings)
    else:
        folder = finished(work, settings) or run_experiment(settings).folder
        predictor = Predictor.load(folder, device="cpu")
        cost = read_cost(folder)
    cases = cases_named(settings, split[options.score_on])
    scores = score_cases(predictor, cases)
    summaries = {one.class_name: one.dice.mean for one in summarise(scores)}
    by_case: dict[str, list[float]] = {}
    for row in scores:
        by_case.setdefault(row.case, []).append(row.score.dice)
    return {
        "dice_mean": round(summaries.pop(MEAN), 4),
        "dice_per_class": {name: round(dice, 4) for name, dice in summaries.items()},
        "epochs_trained": cost.epochs if cost else 0,
        "cpu_s": round(cost.cpu_seconds, 1) if cost else 0.0,
        "share_peak": round(cost.peak_share, 6) if cost else 0.0,
        "share_mean": round(cost.mean_share, 6) if cost else 0.0,
        "cases": {case: round(float(np.nanmean(dice)), 5) for case, dice in by_case.items()},
    }


def finished(work: Path, settings: Settings) -> Path | None:
    """The run of an earlier call, kept with --work and scored on other subjects then."""
    return next((p.parent for p in work.glob(f"*_{settings.name}/result.json")), None)


def settings_of(
    options: argparse.Namespace, split: dict[str, Any], work: Path, source: Path, wanted: Row
) -> Settings:
    arm, n, seed = wanted["arm"], wanted["n"], wanted["seed"]
    cases = subjects(split, n, seed)
    weights = "none" if arm == FROM_SCRATCH else source
    settings = compose(
        "finetune",
        [
            *COMMON,
            f"finetuning={DEFAULT if arm in (UNTOUCHED, *VARIANTS) else arm}",
            *VARIANTS.get(arm, []),
            *data_overrides(options, split, work, f"{arm}_{n}_{seed}", cases),
            f"datasets.k_sample={2 * (options.steps // options.epochs)}",
            f"lightning.max_epochs={options.epochs}",
            f"finetuning.pretrained={weights}",
            *([] if arm == FROM_SCRATCH else [SPLIT_HEAD]),
            f"seed={seed}",
        ],
    )
    tuning = in_proportion(settings.finetuning, options.epochs, settings.models.lr)
    return settings.model_copy(update={"finetuning": tuning})


def subjects(split: dict[str, Any], n: int, seed: int) -> list[str]:
    """The n subjects to fine-tune on, others for each seed as far as there are."""
    first = seed * n % len(split["finetune"])
    return [*split["finetune"], *split["finetune"]][first : first + n]


def in_proportion(tuning: FinetuningSettings, epochs: int, lr: float) -> FinetuningSettings:
    """The preset with the shares of the whole that its parts have in a run of usual length.

    - hsf: an equal part for each of its four stages.
    - linear: the whole run, unless validation stops improving.
    - gradual: thirds follow from the length; a plateau is two epochs.
    - progressive: the backbone unfreezes after a tenth (epoch 5 of 50).
    - lpft: the head alone trains for a fifth (10 of 50).
    - staged: a tenth, a fifth and the rest (5, 10 and 35 of 50), at the preset's rates
      times that of the other arms over `PRESET_LR`.
    - rates that fall in steps do so after each third; a plateau is two epochs.
    """
    changes: dict[str, Any] = {}
    drops = {"step": max(epochs // 3, 1), "plateau": 2}
    if tuning.lr_schedule in drops:
        changes = {"lr_drop_epochs": drops[tuning.lr_schedule]}
    elif tuning.chosen_strategy == "hsf":
        changes = {"unfreeze_frequency": max(epochs // STAGES, 1)}
    elif tuning.chosen_strategy == "linear":
        changes = {"linear_probe_epochs": epochs}
    elif tuning.chosen_strategy == "gradual":
        changes = {"gradual_patience": 2}
    elif tuning.chosen_strategy == "progressive":
        changes = {"unfreeze_backbone_at_epoch": max(round(epochs / 10), 1)}
    elif tuning.chosen_strategy == "lpft":
        changes = {"linear_probe_epochs": max(round(epochs / 5), 1)}
    elif tuning.chosen_strategy == "staged":
        whole = sum(stage.epochs for stage in tuning.stages)
        lengths = [max(round(stage.epochs * epochs / whole), 1) for stage in tuning.stages[:-1]]
        lengths.append(max(epochs - sum(lengths), 1))
        changes["stages"] = [
            stage.model_copy(
                update={"epochs": length, "lr": lr * (stage.lr or PRESET_LR) / PRESET_LR}
            )
            for stage, length in zip(tuning.stages, lengths, strict=True)
        ]
    return tuning.model_copy(update=changes)


def untouched(settings: Settings) -> Predictor:
    """The source model with its head split, before any step."""
    setup = prepare(settings, discover(settings.datasets, settings.models), preview=True)
    assert setup.transfer is not None
    return Predictor(setup.anatomy, setup.card, torch.device("cpu"))


def cases_named(settings: Settings, names: Sequence[str]) -> list[Case]:
    cases = discover(settings.datasets).cases
    chosen = [case for case in cases if case.name.rsplit("__", 1)[-1] in set(names)]
    if len(chosen) != len(names):
        raise SystemExit(f"found {len(chosen)} of the {len(names)} cases to score")
    return chosen


# ---------------------------------------------------------------------- summarising
def summary(rows: Sequence[Row], arm: str) -> Row:
    """One line of the table: means over seeds, intervals over subjects."""
    mine = [row for row in rows if row["arm"] == arm]
    default = [row for row in rows if row["arm"] == DEFAULT]
    dice = over_seeds(mine)
    against = over_seeds(default)
    shared = sorted(dice.keys() & against.keys())
    change = [dice[case] - against[case] for case in shared]
    by_seed = [row["dice_mean"] for row in mine]
    return {
        "arm": arm,
        "seeds": len({row["seed"] for row in mine}),
        "dice": shown(bootstrap_interval(list(dice.values()), [*dice])),
        "sd over seeds": round(float(np.std(by_seed, ddof=1)), 3) if len(by_seed) > 1 else "-",
        "less default": "-" if arm == DEFAULT else shown(bootstrap_interval(change, shared), "+"),
        "epochs": mean_of(mine, "epochs_trained"),
        "cpu_s": mean_of(mine, "cpu_s"),
        "share": mean_of(mine, "share_peak"),
        "mean share": mean_of(mine, "share_mean"),
    }


def over_seeds(rows: Sequence[Row]) -> dict[str, float]:
    """Case -> its Dice, averaged over seeds."""
    cases: dict[str, list[float]] = {}
    for row in rows:
        for case, dice in row["cases"].items():
            cases.setdefault(case, []).append(dice)
    return {case: float(np.mean(values)) for case, values in cases.items()}


def mean_of(rows: Sequence[Row], key: str) -> float:
    return float(np.mean([row[key] for row in rows])) if rows else float("nan")


def shown(interval: Interval, sign: str = "") -> str:
    mean, low, high = (f"{v:{sign}.3f}" for v in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    main()
