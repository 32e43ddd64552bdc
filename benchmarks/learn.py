"""Ten rounds of `hsf-finetune learn` with simulated corrections: what is left to correct.

    python benchmarks/learn.py --data ../shared/data/msd_hippocampus --json learn.json

A model is fine-tuned on five `finetune` subjects, from the source of benchmarks/msd_hippocampus.py. In each
round a person corrects its segmentations of three `extra` scans that it has not seen: the corrections
are the true labels. The model learns from them, and goes on to the next round. With `--site new` the
scans to correct are of another contrast (inverted, gamma 1.5), which the five were not.

voxels is the mean number of wrong voxels in a segmentation of ten further scans of the same
site, which are never corrected. lost is the largest loss of mean Dice of an earlier validation case
since the first round, and share that of the way from the weights before to the trained ones that keeps it small.
With --limit RUN, the wrong voxels of another model, such as one of all labels, are counted too: fewer cannot be had.
Rows that --json has already are not measured again, as long as --work keeps the runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from msd_hippocampus import (
    COMMON,
    SPLIT_HEAD,
    data_overrides,
    length,
    numbers,
    parse,
    parser_of_runs,
    train_source,
)
from rows import measured, show

from hsf_finetune.config.compose import compose
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.experiment.learn import learn
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor

_CASES, _EACH, _MEASURED = 5, 3, 10


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads(options.split.read_text())
    with tempfile.TemporaryDirectory() as folder:
        bench = Benchmark(options, split, (options.work or Path(folder)).resolve())
        rows = measured(options.json, lambda known: missing(options, known), bench.measure)
        if options.limit:
            for site in options.site:
                scans = bench.write_scans(bench.work / site, split["extra"][:_MEASURED], site)
                print(f"{site} site: {bench.count_wrong(options.limit, *scans):.0f} by the limit")
    show("MSD hippocampus: rounds of corrections", rows)


def arguments() -> argparse.Namespace:
    parser = parser_of_runs(__doc__)
    parser.add_argument("--site", type=lambda text: text.split(","), default=["same", "new"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=numbers, default=[0])
    parser.add_argument("--steps", type=int, default=320, help="of the first model")
    parser.add_argument("--learn-steps", type=int, default=60, help="of each round")
    parser.add_argument("--base", help="run folder of the first model, made before: base_{seed}")
    parser.add_argument("--limit", type=Path, metavar="RUN", help="run folder of a better model")
    return parse(parser)


def missing(options: argparse.Namespace, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is to be measured beside the rows that are known."""
    known = [(row["site"], row["seed"], row["round"]) for row in rows]
    for seed in options.seeds:
        for site in options.site:
            for number in range(options.rounds + 1):
                if (site, seed, number) not in known:
                    yield {"site": site, "seed": seed, "round": number}


class Benchmark:
    """The first models, and the rounds that follow them.

    Args:
        options: of the command.
        split: names of the cases.
        work: folder of all runs.
    """

    def __init__(self, options: argparse.Namespace, split: dict[str, Any], work: Path) -> None:
        self.options, self.split, self.work = options, split, work
        self.images = options.data.resolve() / "imagesTr"

    def measure(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """One round: what it corrected, and what is left to correct after it."""
        site, seed, number = wanted["site"], wanted["seed"], wanted["round"]
        started = time.process_time()
        chain = self.work / f"{site}_{seed}"
        run, lost, corrected, share = self.first_model(seed), 0.0, 0.0, 0.0
        if number:
            before = chain / f"round_{number - 1}" if number > 1 else run
            run = chain / f"round_{number}"
            first = _MEASURED + (number - 1) * _EACH
            cases = self.split["extra"][first : first + _EACH]
            scans, labels = self.write_scans(chain / f"scans_{number}", cases, site)
            made = learn(before, labels, run, scans, self.options.learn_steps)
            lost, share = max(made.losses.values()), made.share
            corrected = float(np.mean([one.changed for one in made.corrections]))
        cpu_s = time.process_time() - started
        cases = self.split["extra"][:_MEASURED]
        voxels = self.count_wrong(run, *self.write_scans(chain / "measured", cases, site))
        return {
            "corrected": round(corrected),
            "voxels": round(voxels),
            "lost": round(lost, 4),
            "share": share,
            "cpu_s": round(cpu_s),
        }

    def first_model(self, seed: int) -> Path:
        """The run that the first round goes on from."""
        if self.options.base:
            return Path(self.options.base.format(seed=seed))
        folder = self.work / f"first_{seed}"
        if not (folder / "result.json").exists():
            source = self.options.source or train_source(self.options, self.split, self.work)
            known = self.split["finetune"]
            cases = [known[(seed * _CASES + n) % len(known)] for n in range(_CASES)]
            dataset = "datasets.datasets.msd_hippocampus"
            table = self.work / f"cases_{seed}.csv"
            rows = [
                (self.images / f"{one}.nii.gz", self.label(one))
                for one in [*cases, *self.split["validation"]]
            ]
            self.work.mkdir(parents=True, exist_ok=True)
            with table.open("w", newline="") as file:
                csv.writer(file).writerows([("image", "label"), *rows])
            run_experiment(
                compose(
                    "finetune",
                    [
                        *COMMON,
                        *data_overrides(self.options, self.split, self.work, f"{seed}", cases),
                        f"~{dataset}.patterns",
                        f"+{dataset}.table={table}",
                        *length(self.options.steps, _CASES, every=4),
                        f"finetuning.pretrained={source}",
                        SPLIT_HEAD,
                        f"seed={seed}",
                        f"run_dir={folder}",
                        "quality=on",
                        "report=off",
                        "lightning.forecast=false",
                    ],
                )
            )
        return folder

    def label(self, case: str) -> Path:
        """The true label of a case."""
        return Path(self.images.with_name("labelsTr") / f"{case}.nii.gz")

    def write_scans(self, folder: Path, cases: list[str], site: str) -> tuple[Path, Path]:
        """Folders of scans as the site has them, and of their true labels."""
        scans, labels = folder / "scans", folder / "labels"
        for one in (scans, labels):
            one.mkdir(parents=True, exist_ok=True)
        for case in cases:
            scan, label = scans / f"{case}.nii.gz", labels / f"{case}.nii.gz"
            if not label.exists():
                image = read_volume(VolumeRef(self.images / scan.name))
                array = image.array.astype(np.float32)
                if site == "new":
                    low, high = np.percentile(array, [0.5, 99.5])
                    array = (1 - np.clip((array - low) / (high - low), 0, 1)) ** 1.5
                nib.save(nib.Nifti1Image(array, image.affine), scan)
                label.symlink_to(self.label(case))
        return scans, labels

    def count_wrong(self, run: Path, scans: Path, labels: Path) -> float:
        """Wrong voxels in a segmentation, on average."""
        model = Predictor.load(run, device="cpu")
        wrong = []
        for path in sorted(scans.iterdir()):
            truth = read_volume(VolumeRef(labels / path.name)).array
            wrong.append(int((model.predict(path).labels != truth).sum()))
        return float(np.mean(wrong))


if __name__ == "__main__":
    main()
