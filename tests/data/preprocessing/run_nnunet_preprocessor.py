"""Writes small datasets, and what nnU-Net plans and makes of them; run in its environment.

    python run_nnunet_preprocessor.py FOLDER

It writes FOLDER/NAME/caseN_0000.nii.gz, caseN.nii.gz, caseN.npy (what the network sees) and
plan.json of each dataset, all along x, y and z.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(sys.argv[1])
for part in ("raw", "preprocessed", "results"):
    os.environ[f"nnUNet_{part}"] = str(ROOT / "nnunet" / part)
os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}

import nibabel as nib  # noqa: E402 (nnU-Net reads the folders above when it is imported)
import numpy as np  # noqa: E402
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: E402
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprint_dataset,
)
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # noqa: E402
    DefaultPreprocessor,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402

DATASETS: dict[str, tuple[str, list[float], list[int]]] = {
    "isotropic": ("MR", [0.9, 0.9, 0.9], [30, 38, 34]),
    "anisotropic": ("MR", [0.6, 3.5, 0.7], [44, 11, 40]),
    "ct": ("CT", [1.2, 1.0, 2.0], [30, 34, 20]),
}
"""Name -> channel, voxel size in mm, and voxels of a median scan."""


def write_case(rng: np.random.Generator, folder: Path, name: str, number: int) -> None:
    """A head or body with a structure in it, and nothing or air around."""
    channel, spacing_mm, size = DATASETS[name]
    shape = [n + int(rng.integers(-3, 4)) for n in size]
    spacing = np.array(spacing_mm) * rng.uniform(0.8, 1.25)
    where = np.indices(shape) - (np.array(shape) / 2 + rng.uniform(-1, 1, 3)).reshape(3, 1, 1, 1)
    radius = (where**2 / ((np.array(shape) * 0.38) ** 2).reshape(3, 1, 1, 1)).sum(0)
    label = (radius < 0.3).astype(np.uint8) * (1 + number % 2)
    tissue = rng.normal(60, 25, shape) if channel == "CT" else rng.normal(500, 60, shape)
    outside = rng.normal(-1000, 8, shape) if channel == "CT" else 0.0
    image = np.where(radius < 1, tissue + 90 * label, outside).astype(np.float32)
    affine = np.diag([*spacing, 1.0])
    nib.save(nib.Nifti1Image(image, affine), folder / "imagesTr" / f"case{number}_0000.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"case{number}.nii.gz")


def make(name: str, identifier: int) -> None:
    """One dataset: written, planned, preprocessed."""
    raw = ROOT / "nnunet" / "raw" / f"Dataset{identifier:03d}_{name}"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    rng = np.random.default_rng(identifier)
    for number in range(4):
        write_case(rng, raw, name, number)
    described = {
        "channel_names": {"0": DATASETS[name][0]},
        "labels": {"background": 0, "one": 1, "two": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
    }
    (raw / "dataset.json").write_text(json.dumps(described))
    extract_fingerprint_dataset(identifier, num_processes=1)
    plans = PlansManager(ExperimentPlanner(identifier).plan_experiment())
    chosen = plans.get_configuration("3d_fullres")
    # Arrays of nnU-Net run along z, y and x, and are transposed by the plan.
    axes = [plans.transpose_backward[axis] for axis in (2, 1, 0)]
    out = ROOT / name
    out.mkdir()

    def along_xyz(sizes: Any) -> list[float]:
        return [float(sizes[axis]) for axis in axes]

    halvings = np.prod(chosen.configuration["architecture"]["arch_kwargs"]["strides"], axis=0)
    plan = {
        "spacing": along_xyz(chosen.spacing),
        "patch": along_xyz(chosen.patch_size),
        "divisor": along_xyz(halvings),
        "channel": DATASETS[name][0],
    }
    (out / "plan.json").write_text(json.dumps(plan))
    for number in range(4):
        files = (
            raw / "imagesTr" / f"case{number}_0000.nii.gz",
            raw / "labelsTr" / f"case{number}.nii.gz",
        )
        worker = DefaultPreprocessor(verbose=False)
        image, label, _ = worker.run_case([str(files[0])], str(files[1]), plans, chosen, described)
        both = np.stack([image[0], np.maximum(label[0], 0)]).transpose([0, *(n + 1 for n in axes)])
        np.save(out / f"case{number}.npy", both.astype(np.float32))
        for file in files:
            shutil.copy(file, out)


if __name__ == "__main__":
    for position, key in enumerate(DATASETS, start=1):
        make(key, position)
