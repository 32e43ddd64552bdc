"""A few labelled scans and many without labels: what each way of using them reaches.

    python benchmarks/few_labels.py --data ../shared/data/msd_hippocampus --json few_labels.json

Arms, for each number of labelled cases and each seed, which draws other subjects:

- fine-tuned: `finetune.py` as it is, from the source of benchmarks/msd_hippocampus.py, which is
  trained with `augmentation=strong` here
- strong: with `augmentation=strong`
- kept: with `finetuning.keep_old=everywhere`
- kept strong: with both
- shifts: `kept`, its probabilities averaged over eight shifts (`predict --tta shift`)
- ensemble: of three runs as `kept`, averaged
- ensemble shifts: the same, each averaged over eight shifts
- selftrain: a student of `kept`, which learns from the scans of --unlabelled too, whose labels are
  never opened
- distilled: the same with the ensemble as the teacher
- from scratch, from scratch selftrain: without a source

`difference` is that of the mean Dice to fine-tuned, with its 95 % interval over subjects. cpu_s is
the processor time of everything that an arm needs: teacher, labels and student. Rows that --json
has already are not measured again, and runs that --work has are not made again: another folder
for other settings. `--arms "all labels"` is the line that none can pass: true
labels for all scans outside the test subjects.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from msd_hippocampus import (
    COMMON,
    SPLIT_HEAD,
    data_overrides,
    length,
    numbers,
    parse,
    parser_of_runs,
    scored,
    train_source,
)
from rows import measured, show

from hsf_finetune.config.compose import compose
from hsf_finetune.evaluation.score_tables import MEAN, ScoreRow, paired_differences, summarise
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.ensemble import load_models
from hsf_finetune.inference.scan_model import ScanModel

ARMS = (
    "fine-tuned",
    "strong",
    "kept",
    "kept strong",
    "shifts",
    "ensemble",
    "ensemble shifts",
    "selftrain",
    "distilled",
    "from scratch",
    "from scratch selftrain",
)
ALL_LABELS = "all labels"
STRONG = "augmentation=strong"
KEPT = "finetuning.keep_old=everywhere"
SCRATCH = "finetuning=from_scratch"
_MEMBERS = 3


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Benchmark(options, options.work or Path(folder))
        rows = measured(options.json, lambda known: missing(options, known), bench.measure)
    shown = [row for row in rows if row["arm"] in options.arms]
    show(f"MSD hippocampus, {options.score_on} subjects", shown)
    if options.picture:
        draw(shown, options.picture)


def arguments() -> argparse.Namespace:
    parser = parser_of_runs(__doc__)
    parser.add_argument("--unlabelled", help="names of scans, or a file of them (JSON or lines)")
    parser.add_argument("--n", type=numbers, default=[1, 2, 5, 16], help="such as 1,5,16")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=320, help="of each training")
    parser.add_argument("--score-on", default="test", help="list of the split that is scored")
    parser.add_argument("--set", action="append", default=[], help="further overrides, for trials")
    parser.add_argument("--picture", type=Path, help="draw Dice against n there")
    return parse(parser)


def missing(options: argparse.Namespace, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is to be measured beside the rows that are known."""
    known = [(row["arm"], row["n"], row["seed"]) for row in rows]
    for n in options.n:
        for seed in options.seeds:
            for arm in options.arms:
                if (arm, n, seed) not in known:
                    yield {"arm": arm, "n": n, "seed": seed}


@dataclass(frozen=True)
class Trained:
    """Runs whose probabilities are averaged, in some views, and what they took."""

    folders: tuple[Path, ...]
    cpu_s: float
    views: str = "off"

    def model(self) -> ScanModel:
        """The mean of them."""
        return load_models(self.folders, device="cpu").with_views(self.views)  # type: ignore[arg-type]


@dataclass
class Benchmark:
    """Trains and scores the arms; a run that several arms need is made once."""

    options: argparse.Namespace
    work: Path
    runs: dict[str, Trained] = field(default_factory=dict)
    scores: dict[tuple[int, int], list[ScoreRow]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.split = json.loads(self.options.split.read_text())
        self.unlabelled = find_unlabelled(self.options, self.split)
        self.source = self.options.source
        first = [scan for scan in self.unlabelled if scan in self.split[self.options.score_on]]
        if first:
            raise SystemExit(f"{first[0]} is scored, and cannot be used without its label")

    def measure(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Dice and cost of an arm."""
        arm, n, seed = wanted["arm"], wanted["n"], wanted["seed"]
        trained = self.train(arm, n, seed)
        rows = self.score(trained)
        if arm == "fine-tuned":
            self.scores[n, seed] = rows
        elif (n, seed) not in self.scores:
            self.scores[n, seed] = self.score(self.train("fine-tuned", n, seed))
        mean = summarise(rows)[-1].dice
        change = paired_differences(self.scores[n, seed], rows)[MEAN]
        return {
            "dice_mean": round(mean.mean, 4),
            "dice_low": round(mean.low, 4),
            "dice_high": round(mean.high, 4),
            "difference": round(change.mean, 4),
            "difference_low": round(change.low, 4),
            "difference_high": round(change.high, 4),
            "steps": self.options.steps,
            "cpu_s": round(trained.cpu_s, 1),
        }

    def score(self, trained: Trained) -> list[ScoreRow]:
        """Scores on the subjects of `--score-on`."""
        settings = compose(
            "finetune", [*COMMON, f"datasets.main_path={self.options.data.resolve()}"]
        )
        return scored(settings, trained.model(), self.split[self.options.score_on])

    def train(self, arm: str, n: int, seed: int) -> Trained:
        """The model, or models, of an arm."""
        if arm == "fine-tuned":
            return self.run("fine-tuned", n, seed)
        if arm == "strong":
            return self.run("strong", n, seed, STRONG)
        if arm == "kept":
            return self.run("kept", n, seed, KEPT)
        if arm == "kept strong":
            return self.run("kept strong", n, seed, KEPT, STRONG)
        if arm == "shifts":
            return replace(self.run("kept", n, seed, KEPT), views="shift")
        if arm == "ensemble":
            return self.ensemble(n, seed)
        if arm == "ensemble shifts":
            return replace(self.ensemble(n, seed), views="shift")
        if arm == "selftrain":
            return self.student(arm, n, seed, self.run("kept", n, seed, KEPT), KEPT)
        if arm == "distilled":
            return self.student(arm, n, seed, self.ensemble(n, seed), KEPT)
        if arm == "from scratch":
            return self.run("from scratch", n, seed, SCRATCH)
        if arm == "from scratch selftrain":
            teacher = self.run("from scratch", n, seed, SCRATCH)
            return self.student(arm, n, seed, teacher, SCRATCH)
        if arm == ALL_LABELS:
            return self.run(ALL_LABELS, n, seed, STRONG)
        raise SystemExit(f"no arm '{arm}'; known: {', '.join([*ARMS, ALL_LABELS])}")

    def ensemble(self, n: int, seed: int) -> Trained:
        """Runs on the same cases that differ in their seed."""
        cases = self.cases(n, seed)
        members = [
            self.run("kept", n, seed, KEPT),
            *(
                self.run(f"member {k}", n, seed + 100 * k, KEPT, cases=cases)
                for k in range(1, _MEMBERS)
            ),
        ]
        folders = tuple(folder for one in members for folder in one.folders)
        return Trained(folders, sum(one.cpu_s for one in members))

    def student(self, arm: str, n: int, seed: int, teacher: Trained, *more: str) -> Trained:
        """A student of runs that were made before, which are part of its cost."""
        folder = self.options.data.resolve() / "imagesTr"
        scans = ",".join(f"{folder / name}.nii.gz" for name in self.unlabelled)
        teachers = ",".join(map(str, teacher.folders))
        own = (f"finetuning.selftrain={{teacher: [{teachers}]}}", f"datasets.unlabelled=[{scans}]")
        made = self.run(arm, n, seed, *more, *own)
        return Trained(made.folders, made.cpu_s + teacher.cpu_s)

    def run(
        self, arm: str, n: int, seed: int, *more: str, cases: list[str] | None = None
    ) -> Trained:
        """One run, unless it was made before."""
        name = f"{arm.replace(' ', '_')}_{n}_{seed}"
        made = self.work / f"run_{name}.json"
        if name in self.runs:
            return self.runs[name]
        if made.exists():
            known = json.loads(made.read_text())
            return self.runs.setdefault(name, Trained((Path(known["folder"]),), known["cpu_s"]))
        if cases is None:
            cases = self.cases(n, seed) + (self.unlabelled if arm == ALL_LABELS else [])
        if self.source is None:
            self.source = train_source(self.options, self.split, self.work, STRONG)
        started = time.process_time()
        result = run_experiment(
            compose(
                "finetune",
                [
                    *COMMON,
                    *data_overrides(self.options, self.split, self.work, name, cases),
                    *self.listed(name, [*cases, *self.split["validation"]]),
                    *length(self.options.steps, len(cases), every=4),
                    *(
                        []
                        if SCRATCH in more
                        else (f"finetuning.pretrained={self.source}", SPLIT_HEAD)
                    ),
                    *more,
                    f"seed={seed}",
                    "report=off",
                    "quality=off",
                    "lightning.forecast=false",
                    f"lightning.threads={self.options.threads}",
                    *self.options.set,
                ],
            )
        )
        self.runs[name] = Trained((result.folder,), time.process_time() - started)
        made.write_text(json.dumps({"folder": str(result.folder), "cpu_s": self.runs[name].cpu_s}))
        return self.runs[name]

    def listed(self, name: str, cases: list[str]) -> list[str]:
        """Overrides for a table of these cases, so that no label but theirs is opened."""
        table = self.work / f"cases_{name}.csv"
        with table.open("w", newline="") as file:
            data = self.options.data.resolve()
            folders = (data / "imagesTr", data / "labelsTr")
            writer = csv.writer(file)
            writer.writerow(["image", "label"])
            writer.writerows([folder / f"{case}.nii.gz" for folder in folders] for case in cases)
        dataset = "datasets.datasets.msd_hippocampus"
        return [f"~{dataset}.patterns", f"+{dataset}.table={table}"]

    def cases(self, n: int, seed: int) -> list[str]:
        """The labelled cases: other subjects for each seed, as far as there are."""
        known: list[str] = self.split["finetune"]
        first = seed * n % len(known)
        return [*known, *known][first : first + n]


def find_unlabelled(options: argparse.Namespace, split: dict[str, Any]) -> list[str]:
    """Names of the scans without labels, of which there may be labels that are not opened."""
    if options.unlabelled:
        path = Path(options.unlabelled)
        text = path.read_text() if path.is_file() else options.unlabelled.replace(",", "\n")
        names = json.loads(text) if text.lstrip().startswith("[") else text.split()
        return [str(name).removesuffix(".nii.gz") for name in names]
    listed = {name for value in split.values() if isinstance(value, list) for name in value}
    files = sorted((options.data / "imagesTr").glob("hippocampus_*.nii.gz"))
    stems = [file.name.removesuffix(".nii.gz") for file in files]
    return [name for name in stems if name not in listed] or split["extra"][:70]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Mean Dice over the seeds against the number of labelled cases."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        by_n: dict[int, list[float]] = {}
        for row in rows:
            if row["arm"] == arm:
                by_n.setdefault(row["n"], []).append(row["dice_mean"])
        means = [sum(values) / len(values) for values in by_n.values()]
        if arm == ALL_LABELS:
            axes.axhline(max(means), color="black", linestyle=":", label=arm)
        else:
            axes.plot([*by_n], means, marker="o", label=arm)
    axes.set(xscale="log", xlabel="labelled cases", ylabel="mean Dice")
    axes.set_xticks(sorted({row["n"] for row in rows}), minor=False)
    axes.get_xaxis().set_major_formatter(mpl.ticker.ScalarFormatter())
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
