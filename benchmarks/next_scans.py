"""Which scans to segment by hand next: those of `hsf-finetune next` against random ones.

    python benchmarks/next_scans.py --data ../shared/data/msd_hippocampus --json next.json

For each draw a model is fine-tuned on five other `finetune` subjects (benchmarks/learn.py makes it). Five
of `--pool` `extra` scans are chosen, by `next` or at random, and segmented: by their true labels. The model
learns from them (`hsf-finetune learn`), and is scored on `--scored` further `extra` subjects.

difference is the mean Dice with the scans of `next` less that with random ones, with its 95 % interval over
draws. Rows that --json has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learn import Benchmark
from msd_hippocampus import numbers, parse, parser_of_runs
from rows import measured, show

from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.evaluation.intervals import bootstrap_interval
from hsf_finetune.experiment.learn import learn
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.quality.next_scans import choose_next, rank_scans

ARMS = ("next", "random")
_PICKED = 5


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads(options.split.read_text())
    with tempfile.TemporaryDirectory() as folder:
        bench = Benchmark(options, split, (options.work or Path(folder)).resolve())
        rows = measured(
            options.json,
            lambda known: missing(options, known),
            lambda wanted: measure(bench, wanted),
        )
    show("MSD hippocampus: five more cases", rows)
    dice = {(row["seed"], row["arm"]): row["dice"] for row in rows}
    seeds = [seed for seed, arm in dice if arm == "random" and (seed, "next") in dice]
    change = [dice[seed, "next"] - dice[seed, "random"] for seed in seeds]
    found = bootstrap_interval(change, list(map(str, seeds)), bounds=(-1.0, 1.0))
    print(
        f"difference over {len(seeds)} draws: {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    )


def arguments() -> argparse.Namespace:
    parser = parser_of_runs(__doc__)
    parser.add_argument("--pool", type=int, default=60)
    parser.add_argument("--scored", type=int, default=40)
    parser.add_argument("--seeds", type=numbers, default=[*range(20)], help="the draws")
    parser.add_argument("--steps", type=int, default=320, help="of the first model")
    parser.add_argument("--learn-steps", type=int, default=60)
    parser.add_argument("--base", help="run folder of the first model, made before: base_{seed}")
    return parse(parser)


def missing(options: argparse.Namespace, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is to be measured beside the rows that are known."""
    known = [(row["seed"], row["arm"]) for row in rows]
    for seed in options.seeds:
        for arm in ARMS:
            if (seed, arm) not in known:
                yield {"seed": seed, "arm": arm}


def measure(bench: Benchmark, wanted: dict[str, Any]) -> dict[str, Any]:
    """Chooses, learns and scores."""
    options, seed, arm = bench.options, wanted["seed"], wanted["arm"]
    base, folder = bench.first_model(seed), bench.work / f"{arm}_{seed}"
    started = time.process_time()
    pool = bench.split["extra"][: options.pool]
    if arm == "next":
        scans, _ = bench.write_scans(bench.work / "pool", pool, "same")
        model = Predictor.load(base, device="cpu")
        ranked, _ = rank_scans(model, scans, folder / "next", lambda done, total: None)
        names = [one.job.channels[0].path.name for one in choose_next(ranked, _PICKED)]
        chosen = [name.removesuffix(".nii.gz") for name in names]
    else:
        chosen = np.random.default_rng(seed).choice(pool, _PICKED, replace=False).tolist()
    scans, labels = bench.write_scans(folder, chosen, "same")
    made = learn(base, labels, folder / "run", scans, options.learn_steps)
    cpu_s = time.process_time() - started
    scored = bench.split["extra"][options.pool :][: options.scored]
    model = Predictor.load(made.run.folder, device="cpu")
    dice = [
        mean_dice(model.predict(bench.images / f"{case}.nii.gz").labels, bench.label(case))
        for case in scored
    ]
    return {"dice": round(float(np.mean(dice)), 5), "share": made.share, "cpu_s": round(cpu_s)}


def mean_dice(found: np.ndarray, label: Path) -> float:
    """Mean Dice of anterior and posterior."""
    truth = read_volume(VolumeRef(label)).array
    overlap = [((found == value) & (truth == value)).sum() for value in (1, 2)]
    sizes = [(found == value).sum() + (truth == value).sum() for value in (1, 2)]
    return float(np.mean([2 * a / b for a, b in zip(overlap, sizes, strict=True)]))


if __name__ == "__main__":
    main()
