"""A class added from five cases without the source's data: what the old classes lose.

    python benchmarks/keep_old.py --data ../shared/data/msd_hippocampus --json keep_old.json

A source model knows anterior and posterior hippocampus from the `pretrain` subjects. Five
`finetune` subjects, others for each seed, have labels of one new class alone:

- `tail`: the hindmost third of posterior, so that a class is refined;
- `rim`: the two voxels around the hippocampus, so that a class comes out of the background.

Arms: `plain` takes all else for background; `unannotated` says that the old classes are not drawn,
so that label sets leave them open; `distil` has `finetuning.keep_old=distil` beside that. Nothing is
chosen on the scored subjects: the last epoch is kept.

old_before and old_after are the mean Dice of anterior and posterior (with the tail) by the
retention report, and lost is their difference with its 95 % interval over subjects. new is the Dice of the
new class. Rows that --json has already are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from msd_hippocampus import COMMON, data_overrides, length, numbers, parse, parser_of_runs
from rows import measured, show
from scipy.ndimage import binary_dilation

from hsf_finetune.config.compose import compose
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.experiment.run import run_experiment

OLD = "[anterior, posterior]"
UNANNOTATED = (f"+datasets.datasets.new.unannotated={OLD}",)
ARMS: Mapping[str, Sequence[str]] = {
    "plain": (f"datasets.allow_unsupervised={OLD}",),
    "unannotated": (*UNANNOTATED, f"datasets.allow_unsupervised={OLD}"),
    "distil": (*UNANNOTATED, "finetuning.keep_old=distil"),
}
NEW = ("tail", "rim")
_CASES = 5


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads(options.split.read_text())
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        source = options.source or train_source(options, split, work)
        rows = measured(
            options.json,
            lambda known: missing(options, known),
            lambda wanted: measure(options, split, work, source, wanted),
        )
    show("MSD hippocampus: a new class from five cases", rows)


def arguments() -> argparse.Namespace:
    parser = parser_of_runs(__doc__, source_steps=800)
    parser.add_argument("--new", type=lambda text: text.split(","), default=[*NEW])
    parser.add_argument("--arms", type=lambda text: text.split(","), default=[*ARMS])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=160, help="of fine-tuning")
    parser.add_argument("--score-on", default="extra", help="list of the split that is scored")
    parser.add_argument("--scored", type=int, default=20, help="so many of them, from the first")
    parser.add_argument("--set", action="append", default=[], help="further overrides, for trials")
    return parse(parser)


def missing(options: argparse.Namespace, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is to be measured beside the rows that are known."""
    known = [(row["new_class"], row["arm"], row["seed"]) for row in rows]
    for seed in options.seeds:
        for new in options.new:
            for arm in options.arms:
                if (new, arm, seed) not in known:
                    yield {"new_class": new, "arm": arm, "seed": seed}


def train_source(options: argparse.Namespace, split: dict[str, Any], work: Path) -> Path:
    """Trains the source model and returns its run folder."""
    cases = split["pretrain"]
    settings = compose(
        "train",
        [
            *COMMON,
            *data_overrides(options, split, work, "source", cases),
            *length(options.source_steps, len(cases), every=10),
        ],
    )
    return run_experiment(settings).folder


def measure(
    options: argparse.Namespace,
    split: dict[str, Any],
    work: Path,
    source: Path,
    wanted: dict[str, Any],
) -> dict[str, Any]:
    """Adds the class in one way, and scores the old classes and the new one."""
    new, seed = wanted["new_class"], wanted["seed"]
    known = split["finetune"]
    cases = [known[(seed * _CASES + n) % len(known)] for n in range(_CASES)]
    scored = split[options.score_on][: options.scored]
    name = f"{new}_{wanted['arm']}_{seed}"
    table = write_cases(options.data, work / name, [*cases, *scored], new)
    old = write_cases(options.data, work / name, scored)
    file = work / f"split_{name}.json"
    sides = {"train": cases, "validation": scored}
    file.write_text(json.dumps(sides))
    started = time.process_time()
    run = run_experiment(
        compose(
            "finetune",
            [
                *COMMON,
                *length(options.steps, _CASES, every=options.steps),
                "~datasets.datasets.msd_hippocampus",
                f"+datasets.datasets.new={{path: ., table: {table}, labels_names: {{1: {new}}}}}",
                "datasets.retention={old: {path: ., table: "
                f"{old}, labels_names: {{1: anterior, 2: posterior}}}}}}",
                f"datasets.main_path={work}",
                f"datasets.output_path={work}",
                f"datasets.split_file={file}",
                f"models.labels_names=[anterior, posterior, {new}]",
                "models.use_forgiving_loss=true",
                f"finetuning.pretrained={source}",
                "finetuning.budget=fixed",
                *(["finetuning.derive_from={tail: posterior}"] if new == "tail" else []),
                *ARMS[wanted["arm"]],
                f"name={name}",
                f"seed={seed}",
                "check=off",
                "report=off",
                "calibration=off",
                "lightning.forecast=false",
                *options.set,
            ],
        )
    )
    kept = json.loads((run.folder / "result.json").read_text())["retention"]
    before, after = (kept[when][-1]["dice"]["mean"] for when in ("before", "after"))
    change = kept["change"]["mean"]
    return {
        "old_before": round(before, 4),
        "old_after": round(after, 4),
        "lost": f"{-change['mean']:.4f} [{-change['high']:.4f}, {-change['low']:.4f}]",
        "new": round(run.dice, 4),
        "cpu_s": round(time.process_time() - started),
    }


def write_cases(data: Path, work: Path, cases: Sequence[str], new: str | None = None) -> Path:
    """A table of cases, with labels of the new class alone, or those that there are."""
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases:
        image = data.resolve() / "imagesTr" / f"{case}.nii.gz"
        label = image.parent.with_name("labelsTr") / image.name
        if new is not None:
            drawn = read_volume(VolumeRef(label))
            label = work / image.name
            nib.save(nib.Nifti1Image(new_label(drawn.array, new), drawn.affine), label)
        rows.append((image, label, case))
    table = work / ("cases.csv" if new else "old.csv")
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "subject"), *rows])
    return table


def new_label(label: npt.NDArray[Any], new: str) -> npt.NDArray[np.uint8]:
    """1 where the new class is, for a label in RAS of 1 mm."""
    if new == "rim":
        inside = label > 0
        return np.asarray(binary_dilation(inside, iterations=2) & ~inside, dtype=np.uint8)
    posterior = label == 2
    rows = np.flatnonzero(posterior.any(axis=(0, 2)))
    posterior[:, rows[len(rows) // 3] :] = False
    return np.asarray(posterior, dtype=np.uint8)


if __name__ == "__main__":
    main()
