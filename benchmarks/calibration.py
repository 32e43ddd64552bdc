"""Whether temperatures that were fitted on validation cases calibrate a model for other subjects.

    python benchmarks/few_labels.py --work RUNS
    python benchmarks/calibration.py RUNS/*_finetune_* --threads 1

Of each run on MSD's hippocampus the temperatures of its card, or, where the run is older than these, those
fitted now on its validation cases, are applied to subjects that it has never seen: expected calibration error
(15 bins, voxels around the labels, see `evaluation/reliability.py`) and mean log-likelihood of a voxel before and
after, and Dice of the labels, which a temperature does not change. The mean of all runs is the last row;
`--together` adds the mean of their probabilities, calibrated before it is taken. The test subjects are left for the end
(`--side test`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rows import show, write

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.evaluation.evaluate import cases_of
from hsf_finetune.evaluation.fit_calibration import fit_calibration
from hsf_finetune.evaluation.reliability import CalibrationCase, measure_reliability
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import MEAN, summarise
from hsf_finetune.experiment.validation_lessons import ValidationLessons
from hsf_finetune.inference.calibration import temper
from hsf_finetune.inference.predictor import Predictor

Drawn = Sequence[CalibrationCase]


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    names = json.loads((options.data / "split.json").read_text())[options.side][: options.cases]
    rows: list[dict[str, object]] = []
    calibrated: list[Drawn] = []
    for run in options.runs:
        model = Predictor.load(run, device="cpu")
        validation = cases_of(run, "validation")
        found = model.card.calibration
        if found is None:
            drawn, _ = look(model, run, validation)
            fitted = fit_calibration(drawn, chose_epoch=True)
            found = fitted.calibration if fitted else None
        temperatures = found.temperatures if found else (1.0,)
        unseen = [renamed(validation[0], options.data, name) for name in names]
        drawn, dice = look(model, run, unseen)
        text = " ".join(f"{one:.2f}" for one in temperatures)
        rows.append(
            {"run": run.name, "temperature": text, **figures(drawn, temperatures), "dice": dice}
        )
        calibrated.append(
            [replace(one, probabilities=temper(one.probabilities, temperatures)) for one in drawn]
        )
        print(json.dumps(rows[-1]), flush=True)
    if options.together:
        mean = [
            replace(many[0], probabilities=torch.stack([o.probabilities for o in many]).mean(dim=0))
            for many in zip(*calibrated, strict=True)
        ]
        rows.append({**dict.fromkeys(rows[0], ""), "run": "all together", **figures(mean, (1.0,))})
    each = rows[: len(options.runs)]
    total = {k: round(float(np.mean([r[k] for r in each])), 4) for k in rows[0] if k not in TEXTS}
    rows.append({"run": "mean", "temperature": "", **total})
    show(f"Calibration on {len(names)} {options.side} subjects", rows)
    write(options.json, rows)


TEXTS = ("run", "temperature")


def look(model: Predictor, run: Path, cases: Sequence[Case]) -> tuple[Drawn, float]:
    """Voxels of the cases with the model's probabilities, and its mean Dice."""
    settings = read_settings_of(run).model_copy(update={"postprocessing": "off"})
    lessons = ValidationLessons(settings, len(cases))
    rows = score_cases(model, cases, keep=lessons.take)
    dice = {one.class_name: one.dice.mean for one in summarise(rows)}[MEAN]
    return lessons.voxels, round(float(dice), 4)


def figures(drawn: Drawn, temperatures: tuple[float, ...]) -> dict[str, object]:
    """Calibration error and likelihood at temperature 1 and at others."""
    found: dict[str, object] = {}
    for name, at in (("before", (1.0,)), ("after", temperatures)):
        error = measure_reliability(drawn, [at] * len(drawn)).ece
        likelihood = np.mean([float(case.likelihood(at)) for case in drawn])
        found |= {f"ece_{name}": round(error, 4), f"likelihood_{name}": round(float(likelihood), 4)}
    return found


def renamed(case: Case, data: Path, name: str) -> Case:
    """Another subject, annotated as a case is."""
    image, label = (VolumeRef(data / f / f"{name}.nii.gz") for f in ("imagesTr", "labelsTr"))
    return replace(case, name=name, subject=name, images=(image,), label=label)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs on MSD's hippocampus")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--side", default="extra", choices=["extra", "test"], help="of split.json")
    parser.add_argument("--cases", type=int, default=40, help="use so many scans")
    parser.add_argument("--together", action="store_true", help="also the mean of all runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
