"""Makes scans of phantoms, and lets nnU-Net plan and train on them; run in its environment.

    python run_nnunet.py FOLDER ResidualEncoderUNet CT NibabelIOWithReorient labels

It writes FOLDER/results, a results folder, and FOLDER/scans.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT, NETWORK, CHANNEL, READER, CLASSES = Path(sys.argv[1]), *sys.argv[2:]
for part in ("raw", "preprocessed", "results"):
    os.environ[f"nnUNet_{part}"] = str(ROOT / "nnunet" / part)
os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}

import nibabel as nib  # noqa: E402 (nnU-Net reads the folders above when it is imported)
import numpy as np  # noqa: E402
import torch  # noqa: E402
from nibabel import orientations  # noqa: E402
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: E402
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (  # noqa: E402
    nnUNetPlannerResEncM,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprint_dataset,
    preprocess_dataset,
)
from nnunetv2.run.run_training import get_trainer_from_args  # noqa: E402

NAME = "Dataset001_Phantoms"
IS_CT = CHANNEL == "CT"
SIZE_MM = np.array([26.0, 34.0, 30.0])
SPACING_MM = np.array([1.0, 3.6, 0.9] if IS_CT else [1.0, 1.4, 0.8])
"""Thickest along y, so that the arrays of nnU-Net are transposed; of CT, anisotropic."""
REORIENTED = ("RAS", "LPS", "LAS", "PIR", "SAR", "IPL")
PERMUTED = ("RAS", "RSA", "ARS", "ASR", "SRA", "SAR")
"""Storage orders; without reversed axes where nnU-Net keeps those of a file."""


def phantom(
    rng: np.random.Generator, spacing: Any, size_mm: Any = SIZE_MM
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """A head or body with two structures, and nothing or air around."""
    shape = np.round(size_mm / spacing).astype(int)
    middle = np.array(size_mm) / 2
    grids = np.meshgrid(
        *(np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij"
    )
    where = np.stack(grids, -1) - middle - rng.uniform(-1.5, 1.5, 3)
    inside = (where**2 / (np.array([9.0, 12.0, 10.0]) ** 2)).sum(-1) < 1
    core = (where**2 / (np.array([5.0, 8.0, 5.0]) ** 2)).sum(-1) < 1
    label = np.where(core, np.where(where[..., 1] > 0, 1, 2), 0).astype(np.uint8)
    levels = np.array([40.0, 160.0, -60.0]) if IS_CT else np.array([300.0, 520.0, 120.0])
    image = levels[label] + rng.normal(0, 12, shape)
    outside = rng.normal(-1000, 5, shape) if IS_CT else 0.0
    image = np.where(inside, image, outside).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-11.0, 4.5, 7.25)
    return nib.Nifti1Image(image, affine), nib.Nifti1Image(label, affine)


def write_dataset(rng: np.random.Generator) -> None:
    """Five cases, as nnU-Net takes them."""
    folder = ROOT / "nnunet" / "raw" / NAME
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in range(5):
        image, label = phantom(rng, SPACING_MM * rng.uniform(0.97, 1.03))
        nib.save(image, folder / "imagesTr" / f"case{case}_0000.nii.gz")
        nib.save(label, folder / "labelsTr" / f"case{case}.nii.gz")
    described = {
        "channel_names": {"0": CHANNEL},
        "labels": {"background": 0, "front": 1, "back": 2},
        "numTraining": 5,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": READER,
    }
    if CLASSES == "regions":
        described["labels"] = {"background": 0, "whole": [1, 2], "back": [2]}
        described["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(described))


def train() -> Path:
    """Plans with few features, preprocesses, and trains for a few steps."""
    extract_fingerprint_dataset(1, num_processes=1)
    planner = (nnUNetPlannerResEncM if NETWORK == "ResidualEncoderUNet" else ExperimentPlanner)(1)
    planner.UNet_base_num_features, planner.UNet_max_features_3d = 8, 16
    planner.UNet_blocks_per_stage_encoder = (1, 2, 2, 2, 2, 2, 2)
    planner.plan_experiment()
    preprocess_dataset(1, planner.plans_identifier, ["3d_fullres"], [1])
    # Its patches come from NumPy and their augmentation from all three, in this process.
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    trainer = get_trainer_from_args(
        NAME, "3d_fullres", 0, plans_identifier=planner.plans_identifier, device=torch.device("cpu")
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch = 2, 60
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    return Path(trainer.output_folder_base)


def write_scans(rng: np.random.Generator) -> None:
    """Two voxel sizes, one of them of fewer planes, each stored in all orders; and a large scan."""
    folder = ROOT / "scans"
    folder.mkdir()
    for number, factor in enumerate((1.0, np.array([0.8, 0.9, 1.3]))):
        image, _ = phantom(rng, SPACING_MM * factor, SIZE_MM - 3 * number)
        for stored in REORIENTED if READER == "NibabelIOWithReorient" else PERMUTED:
            turn = orientations.ornt_transform(
                orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(stored)
            )
            nib.save(image.as_reoriented(turn), folder / f"{stored}{number}_0000.nii.gz")
    # What is outside of its head is not 0, so that it is not cropped.
    image, _ = phantom(rng, SPACING_MM, SIZE_MM * 1.7)
    whole = nib.Nifti1Image(np.where(image.dataobj == 0, 1, image.dataobj), image.affine)
    nib.save(whole, folder / "large_0000.nii.gz")


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    write_dataset(rng)
    write_scans(rng)
    results = train()
    target = ROOT / "results" / results.name
    (target / "fold_0").mkdir(parents=True)
    for file in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        shutil.copy(results / file, target / file)
