"""What a source's preprocessing is worth to the model that starts from it.

    python benchmarks/contract.py --threads 1

Phantoms are given Hounsfield units: tissues of 0 to 70, and air, bone, and a field of view that differ
from scan to scan. A source is trained on voxels of 1 mm by nnU-Net's rules (network, statistics of CT, voxel
size). It is fine-tuned on five scans of other voxels, with its preprocessing (as `models=pretrained` does), with
the same at the scans' own voxel size (`preprocessing.spacing=data`), and with HSF's (`preprocessing=hsf`: z-score
of each scan, at its own voxel size), on the same scans and in the same order. Scores are of scans of other subjects, before the first epoch and after the last one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from rows import show, write
from scipy import ndimage

from hsf_finetune.config.compose import compose
from hsf_finetune.data.phantom.phantom_image import Phantom, make_phantom
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.experiment.run import run_experiment

SOURCE_MM, EXTENT_MM = 1.0, (32.0, 46.0, 34.0)
MERGED = np.array([0, 1, 2, 2, 2, 3, 3, 3], np.uint8)
"""Value of each of a phantom's subfields."""
COHORT = """defaults: [base, _self_]
datasets:
  {name}:
    path: {name}
    patterns: {{scans: {{mri: '*_ct.nii.gz', label: '*_label.nii.gz'}}}}
    labels_names: {{1: DG, 2: CA, 3: SUB}}
"""
OTHERS = ("preprocessing.spacing=data", "preprocessing=hsf")
ARMS = {"with the source's preprocessing": (), **{one: (one,) for one in OTHERS}}


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "conf" / "datasets").mkdir(parents=True)
        for name in ("source", "target"):
            file = work / "conf" / "datasets" / f"{name}.yaml"
            file.write_text(COHORT.format(name=name))
        for subject in range(options.source_subjects):
            write_scan(work / "source", subject, SOURCE_MM)
        subjects = range(100, 100 + options.test + options.pool)
        for subject in subjects:
            write_scan(work / "target", subject, options.spacing)
        source = train(options, work)
        for seed in range(options.seeds):
            for name, overrides in ARMS.items():
                before, after = finetune(options, work, source, seed, overrides)
                rows.append({"preprocessing": name, "seed": seed, "before": before, "after": after})
                print(json.dumps(rows[-1]), flush=True)
    means = [mean_row(name, rows) for name in ARMS]
    show(f"Mean Dice of {options.test} scans, {options.seeds} seeds, n = {options.cases}", means)
    first, *others = (np.array([scores(r) for r in rows if r["preprocessing"] == a]) for a in ARMS)
    for name, other in zip(OTHERS, others, strict=True):
        gains = (first - other).round(3).tolist()
        print(f"more than {name}, of each seed (before, after): {gains}")
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spacing", type=float, default=1.4, help="of the target's voxels, in mm")
    parser.add_argument("--source-subjects", type=int, default=14)
    parser.add_argument("--source-epochs", type=int, default=40)
    parser.add_argument("--cases", type=int, default=5, help="scans that are fine-tuned on")
    parser.add_argument("--pool", type=int, default=12, help="scans that these are drawn from")
    parser.add_argument("--test", type=int, default=8, help="scans that are scored")
    parser.add_argument("--epochs", type=int, default=30, help="of fine-tuning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def write_scan(folder: Path, subject: int, spacing_mm: float) -> None:
    """A CT-like scan and its label."""
    shape = tuple(round(n / spacing_mm) for n in EXTENT_MM)
    phantom = make_phantom(7, subject, "right", "T1w", shape, spacing_mm)  # type: ignore[arg-type]
    image = hounsfield(phantom, np.random.default_rng([7, subject]))
    folder.mkdir(exist_ok=True)
    for array, end in ((image, "ct"), (MERGED[phantom.subfields], "label")):
        scan = nib.nifti1.Nifti1Image(array, phantom.affine)
        nib.nifti1.save(scan, folder / f"sub-{subject:03d}_{end}.nii.gz")


def hounsfield(phantom: Phantom, rng: np.random.Generator) -> np.ndarray:
    """Tissue, with air and bone at the sides of the field of view, of random thickness."""
    image = 0.07 * phantom.image + rng.normal(0, 4, phantom.image.shape)
    solid = np.zeros(image.shape)
    for axis, value in ((2, 1100.0), (1, -1000.0), (0, -1000.0)):
        place = np.indices(image.shape)[axis] / image.shape[axis]
        wobble = ndimage.gaussian_filter(rng.normal(size=image.shape), 4) * 1.5
        solid[(place + wobble < rng.uniform(0.0, 0.16)) & (phantom.subfields == 0)] = value
    return np.where(solid != 0, solid, image).astype(np.int16)


def common(options: argparse.Namespace, work: Path, name: str) -> list[str]:
    return [
        f"datasets={name}",
        f"datasets.main_path={work}",
        f"datasets.output_path={work / 'runs'}",
        "datasets.channel_names=[CT]",
        "augmentation=light",
        "lightning.accelerator=cpu",
        f"lightning.threads={options.threads}",
        "lightning.forecast=false",
        "finetuning.budget=fixed",
        "logger=csv",
        "datasets.few_subjects=0",
        "check=off",
    ]


def train(options: argparse.Namespace, work: Path) -> Path:
    """The folder of the source's run."""
    settings = compose(
        "train",
        [
            *common(options, work, "source"),
            "preprocessing=nnunet",
            "models=nnunet",
            "models.features_per_stage=[8,16,32]",
            "models.lr=3e-3",
            f"lightning.max_epochs={options.source_epochs}",
            f"lightning.check_val_every_n_epoch={options.source_epochs}",
        ],
        work / "conf",
    )
    result = run_experiment(settings)
    print(json.dumps({"source": dice(result.after)}), flush=True)
    return result.folder


def finetune(
    options: argparse.Namespace, work: Path, source: Path, seed: int, overrides: Sequence[str]
) -> tuple[float, float]:
    """Mean Dice of the test scans before and after."""
    pool = np.arange(100 + options.test, 100 + options.test + options.pool)
    chosen = np.random.default_rng(seed).choice(pool, options.cases, replace=False)
    split = {"train": chosen.tolist(), "validation": [*range(100, 100 + options.test)]}
    file = work / f"split{seed}.json"
    names = {key: [f"target__sub-{n:03d}_ct" for n in numbers] for key, numbers in split.items()}
    file.write_text(json.dumps(names))
    settings = compose(
        "finetune",
        [
            *common(options, work, "target"),
            f"datasets.split_file={file}",
            "models=pretrained",
            f"finetuning.pretrained={source}",
            f"seed={seed}",
            f"lightning.max_epochs={options.epochs}",
            f"lightning.check_val_every_n_epoch={options.epochs}",
            *overrides,
        ],
        work / "conf",
    )
    result = run_experiment(settings)
    return dice(result.before), dice(result.after)


def dice(rows: Sequence[ScoreRow]) -> float:
    return round(float(np.mean([row.score.dice for row in rows])), 4)


def scores(row: dict[str, Any]) -> list[float]:
    return [float(row["before"]), float(row["after"])]


def mean_row(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["preprocessing"] == name]
    figures = {k: round(float(np.mean([row[k] for row in own])), 3) for k in ("before", "after")}
    return {"preprocessing": name, **figures}


if __name__ == "__main__":
    main()
