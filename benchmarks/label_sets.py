"""What labels that are sets of classes are worth, on real MRI and on phantoms.

    python benchmarks/label_sets.py --data ../shared/data/msd_hippocampus --json label_sets.json

Networks start from random weights and take equally many steps. All train on a few cases that are
drawn in every class (`finest`), most on cases of another protocol beside them:

MSD hippocampus, 8 subjects in anterior and posterior, and 32 in which

- `merged`: both are one label, which stands for the set of them (`merged_evenly` draws all cases
  alike, and not half of them of the 8);
- `merged_as_anterior`: both are one label, taken for anterior;
- `unannotated`: posterior is not drawn, and declared so;
- `unannotated_as_background`: posterior is not drawn, and background is taken for background;
- `drawn_apart`: both are drawn, which is the most that can be had from 40 subjects.

Phantoms with seven subfields, 4 persons in the finest protocol, and beside them in
`four_protocols` 8 in each of three others (CA2 and CA3 merged; CA1 to CA3 merged, and a
TAIL; HEAD and TAIL; `four_evenly` draws all alike), in `drawn_finest` the same persons in the finest protocol.

The last epoch is scored, in the finest protocol, on cases that none trains on. A long run can be
interrupted: rows that are in --json are not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_set_cohorts import FINEST, Part, msd, phantom
from msd_hippocampus import COMMON, length, numbers
from rows import measured, show
from strategies import finished, shown

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.evaluation.intervals import bootstrap_interval
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import MEAN
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.training.training_cost import read_cost

PARTS = {"msd": msd, "phantom": phantom}

Row = dict[str, Any]
Scores = Mapping[str, float]


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads(options.split.read_text())
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        parts = {name: PARTS[name](options, split, work) for name in options.part}
        rows = measured(
            options.json,
            lambda there: missing(options, parts, there),
            lambda wanted: measure(options, parts[wanted["part"]], work, wanted),
        )
    for name, part in parts.items():
        mine = [row for row in rows if row["part"] == name and same_setting(options, row)]
        title = (
            f"{part.title}, {options.steps} steps, {len(part.scored)} cases ({options.score_on})"
        )
        arms = [arm for arm in part.arms if any(row["arm"] == arm for row in mine)]
        show(title, [line for arm in arms for line in summary(mine, arm)])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--split", type=Path, help="default: split.json in --data")
    parser.add_argument("--part", type=lambda text: text.split(","), default=[*PARTS])
    parser.add_argument("--arms", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="such as 0,1,2")
    parser.add_argument("--steps", type=int, default=240, help="of each run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--score-on", default="test", help="side of the split that is scored")
    parser.add_argument("--work", type=Path, help="keep cohorts and runs in this folder")
    parser.add_argument("--json", type=Path, help="rows, written as they come")
    options = parser.parse_args()
    options.split = options.split or options.data / "split.json"
    return options


# ----------------------------------------------------------------- what to measure
def missing(
    options: argparse.Namespace, parts: Mapping[str, Part], rows: Sequence[Row]
) -> Iterable[Row]:
    """What is to be measured and is not among the rows, seed by seed."""
    there = {(r["part"], r["arm"], r["seed"]) for r in rows if same_setting(options, r)}
    for seed in options.seeds:
        for name, part in parts.items():
            for arm in part.arms:
                if (name, arm, seed) not in there and arm in (options.arms or part.arms):
                    how = {"steps": options.steps, "score_on": options.score_on}
                    yield {"part": name, "arm": arm, "seed": seed, **how}


def same_setting(options: argparse.Namespace, row: Row) -> bool:
    """Whether a row was measured with these options."""
    wanted = (options.steps, options.score_on)
    return (row["steps"], row["score_on"]) == wanted and row["seed"] in options.seeds


# ------------------------------------------------------------------------ measuring
def measure(options: argparse.Namespace, part: Part, work: Path, wanted: Row) -> Row:
    """Trains one arm, and scores it in the finest protocol."""
    settings = settings_of(part, work, wanted)
    folder = finished(work, settings) or run_experiment(settings).folder
    cases = by_class(part, settings, folder)
    means = {name: float(np.nanmean([*dice.values()])) for name, dice in cases.items()}
    return {
        "dice_mean": round(means.pop(MEAN), 4),
        "dice_per_class": {name: round(dice, 4) for name, dice in means.items()},
        "cpu_s": round(read_cost(folder).cpu_seconds, 1),
        "cases": cases,
    }


def settings_of(part: Part, work: Path, wanted: Row) -> Settings:
    """Settings of one run; its split is written beside it."""
    arm, seed = wanted["arm"], wanted["seed"]
    name = "_".join(str(wanted[key]) for key in ("part", "arm", "seed", "steps"))
    train = [
        f"{cohort}__images__{stem}"
        for cohort in part.arms[arm]
        for stem in part.cohorts[cohort].taken(seed)
    ]
    held = [f"{FINEST}__images__{stem}" for stem in part.validation]
    file = work / f"split_{name}.json"
    file.write_text(json.dumps({"train": train, "validation": held}))
    settings = compose(
        "train",
        [
            *COMMON,
            *length(wanted["steps"], len(train), every=wanted["steps"]),
            f"datasets.output_path={work}",
            f"datasets.split_file={file}",
            "models.use_forgiving_loss=true",
            "finetuning.budget=fixed",
            f"name={name}",
            f"seed={seed}",
        ],
    )
    changes = {"datasets": part.datasets(arm), "main_path": str(part.root)}
    return settings.model_copy(update={"datasets": settings.datasets.model_copy(update=changes)})


def by_class(part: Part, settings: Settings, folder: Path) -> dict[str, dict[str, float]]:
    """Class (and mean) -> scored case -> Dice."""
    finest = {FINEST: part.cohorts[FINEST].described(part.root / FINEST)}
    datasets = settings.datasets.model_copy(update={"datasets": finest, "split_file": None})
    wanted = {f"{FINEST}__images__{stem}" for stem in part.scored}
    cases = [case for case in discover(datasets).cases if case.name in wanted]
    if len(cases) != len(wanted):
        raise SystemExit(f"found {len(cases)} of the {len(wanted)} cases to score")
    found: dict[str, dict[str, float]] = {}
    for row in score_cases(Predictor.load(folder, device="cpu"), cases):
        found.setdefault(row.score.class_name, {})[row.case] = round(row.score.dice, 5)
    found[MEAN] = {
        case.name: float(np.nanmean([dice.get(case.name, np.nan) for dice in found.values()]))
        for case in cases
    }
    return found


# ---------------------------------------------------------------------- summarising
def summary(rows: Sequence[Row], arm: str) -> list[Row]:
    """A line for each class: means over seeds, intervals over subjects."""
    mine, reference = ([row for row in rows if row["arm"] == name] for name in (arm, FINEST))
    lines = []
    for name in [MEAN, *mine[0]["dice_per_class"]]:
        dice, against = over_seeds(mine, name), over_seeds(reference, name)
        shared = sorted(dice.keys() & against.keys())
        change = [dice[case] - against[case] for case in shared]
        seeds = [float(np.nanmean([*row["cases"][name].values()])) for row in mine]
        lines.append(
            {
                "arm": arm if name == MEAN else "",
                "class": name,
                "seeds": len(seeds),
                "dice": shown(bootstrap_interval([*dice.values()], [*dice])),
                "sd over seeds": round(float(np.std(seeds, ddof=1)), 3) if len(seeds) > 1 else "-",
                f"less {FINEST}": "-"
                if arm == FINEST
                else shown(bootstrap_interval(change, shared), "+"),
            }
        )
    return lines


def over_seeds(rows: Sequence[Row], name: str) -> Scores:
    """Case -> its Dice of a class, averaged over seeds."""
    cases: dict[str, list[float]] = {}
    for row in rows:
        for case, dice in row["cases"][name].items():
            cases.setdefault(case, []).append(dice)
    return {case: float(np.mean(values)) for case, values in cases.items()}


if __name__ == "__main__":
    main()
