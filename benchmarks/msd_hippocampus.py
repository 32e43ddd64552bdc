"""Fine-tuning on real MRI: from one class "hippocampus" to anterior and posterior.

    python benchmarks/msd_hippocampus.py --data ../shared/data/msd_hippocampus --threads 1

A source model is trained on the `pretrain` subjects with both labels merged to one class. It is
fine-tuned on the first n `finetune` subjects, with the head split by class name, beside
a network that starts from random weights and takes equally many steps. Both are scored
once on the `test` subjects, which nothing is chosen on.

`--split` is a JSON file with the keys pretrain, finetune, validation and test, each a list of
file stems. cpu_s is the processor time of the whole run: reading, scoring before and
after, training, validation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rows import show, write

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import MEAN, ScoreRow, summarise
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_model import ScanModel

COMMON = (
    "datasets=msd_hippocampus",
    "datasets.batch_size=2",
    # The crops are all of one side; patches are the cheapest augmentation of them.
    "datasets.patch_vox=[32,48,32]",
    "augmentation.flip=false",
    "models.lr=3e-3",
    "logger=csv",
    "lightning.accelerator=cpu",
)
SOURCE_LABELS = (
    "datasets.datasets.msd_hippocampus.labels={1: 1, 2: 1}",
    # An override adds to a mapping: to replace the names, they go first.
    "~datasets.datasets.msd_hippocampus.labels_names",
    "+datasets.datasets.msd_hippocampus.labels_names={1: hippocampus}",
    "finetuning.out_channels=2",
)
SPLIT_HEAD = "finetuning.derive_from={anterior: hippocampus, posterior: hippocampus}"


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads(options.split.read_text())
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        source = options.source or train_source(options, split, work)
        rows = []
        for n in options.n:
            for arm in ("fine-tuned", "from scratch"):
                rows.append(measure(options, split, work, source, arm, n))
                print(json.dumps(rows[-1]), flush=True)
    show("MSD hippocampus, test subjects", rows)
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--split", type=Path, help="default: split.json in --data")
    parser.add_argument("--n", type=numbers, default=[1, 5, 16], help="such as 1,5,16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=320, help="of fine-tuning")
    parser.add_argument("--source-steps", type=int, default=2000)
    parser.add_argument("--source", type=Path, help="run folder of a source model made before")
    parser.add_argument("--score-on", default="test", help="side of the split that is scored")
    parser.add_argument("--work", type=Path, help="keep the runs in this folder")
    parser.add_argument("--set", action="append", default=[], help="further overrides, for trials")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    options.split = options.split or options.data / "split.json"
    return options


def parser_of_runs(doc: str | None, source_steps: int = 2000) -> argparse.ArgumentParser:
    """The arguments that benchmarks of many runs share; read them with `parse`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--split", type=Path, help="default: split.json in --data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--source-steps", type=int, default=source_steps)
    parser.add_argument("--source", type=Path, help="run folder of a source model made before")
    parser.add_argument("--work", type=Path, help="keep the runs in this folder")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with the split's file."""
    options = parser.parse_args()
    options.split = options.split or options.data / "split.json"
    return options


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def train_source(
    options: argparse.Namespace, split: dict[str, Any], work: Path, *more: str
) -> Path:
    """Trains the source model and returns its run folder."""
    started = time.process_time()
    settings = compose(
        "train",
        [
            *COMMON,
            *SOURCE_LABELS,
            *data_overrides(options, split, work, "source", split["pretrain"]),
            *length(options.source_steps, len(split["pretrain"]), every=10),
            *more,
        ],
    )
    folder = run_experiment(settings).folder
    print(f"source model: {options.source_steps} steps, {time.process_time() - started:.0f} cpu_s")
    return folder


def measure(
    options: argparse.Namespace,
    split: dict[str, Any],
    work: Path,
    source: Path,
    arm: str,
    n: int,
) -> dict[str, object]:
    """Trains one arm and scores it on the test subjects."""
    cases = split["finetune"][:n]
    fine_tuned = arm == "fine-tuned"
    settings = compose(
        "finetune",
        [
            *COMMON,
            f"finetuning={'default' if fine_tuned else 'from_scratch'}",
            *data_overrides(options, split, work, f"{arm.replace(' ', '_')}_{n}", cases),
            *length(options.steps, n, every=4),
            f"finetuning.pretrained={source if fine_tuned else 'none'}",
            *([SPLIT_HEAD] if fine_tuned else []),
            f"seed={options.seed}",
            *options.set,
        ],
    )
    started = time.process_time()
    folder = run_experiment(settings).folder
    cpu_s = time.process_time() - started
    rows = scored(settings, Predictor.load(folder, device="cpu"), split[options.score_on])
    summaries = {s.class_name: s.dice for s in summarise(rows)}
    mean = summaries.pop(MEAN)
    return {
        "arm": arm,
        "n": n,
        "seed": options.seed,
        "dice_per_class": {name: round(dice.mean, 4) for name, dice in summaries.items()},
        "dice_mean": round(mean.mean, 4),
        "dice_low": round(mean.low, 4),
        "dice_high": round(mean.high, 4),
        "steps": options.steps,
        "cpu_s": round(cpu_s, 1),
    }


def scored(settings: Settings, model: ScanModel, names: list[str]) -> list[ScoreRow]:
    """Scores of a model on cases that it has not seen."""
    datasets = settings.datasets.model_copy(update={"split_file": None, "train_on_all": True})
    cases = split_cases(discover(datasets).cases, datasets, seed=0).train
    chosen = [case for case in cases if case.name.rsplit("__", 1)[-1] in set(names)]
    if len(chosen) != len(names):
        raise SystemExit(f"found {len(chosen)} of the {len(names)} cases to score")
    return score_cases(model, chosen)


def data_overrides(
    options: argparse.Namespace, split: dict[str, Any], work: Path, name: str, train: list[str]
) -> list[str]:
    """Overrides for the data of one run; its split is written beside it."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / f"split_{name}.json"
    cases = {"train": train, "validation": split["validation"]}
    file.write_text(
        json.dumps({k: [f"msd_hippocampus__imagesTr__{c}" for c in v] for k, v in cases.items()})
    )
    return [
        f"datasets.main_path={options.data.resolve()}",
        f"datasets.output_path={work}",
        f"datasets.split_file={file}",
        f"name={name}",
    ]


def length(steps: int, cases: int, every: int) -> list[str]:
    """Overrides for a number of steps of batch 2, validated a few times on the way."""
    per_epoch = min(steps, 20)
    epochs = steps // per_epoch
    return [
        f"datasets.k_sample={2 * per_epoch}",
        f"lightning.max_epochs={epochs}",
        f"lightning.check_val_every_n_epoch={min(every, epochs)}",
    ]


if __name__ == "__main__":
    main()
