"""Makes tests/weights/stored/nnunet: results folders and predictions of nnU-Net itself.

Run once, in an environment of its own that has nnunetv2 (2.8.1 made the files), one
folder per call; nnU-Net plans, preprocesses and trains for two steps on noise:

    python tests/weights/stored/make_nnunet.py plain
    python tests/weights/stored/make_nnunet.py residual
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

WORK = Path(tempfile.mkdtemp())
for part in ("raw", "preprocessed", "results"):
    os.environ[f"nnUNet_{part}"] = str(WORK / part)
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
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.run.run_training import get_trainer_from_args  # noqa: E402

HERE = Path(__file__).parent / "nnunet"
SHAPE = (16, 8, 24)
SPACING_MM = (1.0, 2.6, 0.8)
"""Thick along y, so that nnU-Net's transpose_forward is not the identity."""
STORED = {"plain": ("RAS", "PIR"), "residual": ("LAS", "PIR")}
"""How the images of the reference predictions are stored."""


def write_dataset(kind: str, rng: np.random.Generator) -> str:
    """Five cases of noise; its name."""
    name = {"plain": "Dataset001_Plain", "residual": "Dataset002_Residual"}[kind]
    folder = WORK / "raw" / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    affine = np.diag([*SPACING_MM, 1.0])
    for case in range(5):
        label = rng.integers(0, 3, SHAPE).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"case{case}.nii.gz")
        for channel in range(2):
            image = (label * 50 + rng.normal(100, 20, SHAPE)).astype(np.int16)
            nib.save(
                nib.Nifti1Image(image, affine),
                folder / "imagesTr" / f"case{case}_{channel:04d}.nii.gz",
            )
    described = {
        "channel_names": {"0": "T1w", "1": "noNorm"},
        # The order in the file is not that of the values.
        "labels": {"background": 0, "posterior": 2, "anterior": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    if kind == "residual":
        described["overwrite_image_reader_writer"] = "NibabelIOWithReorient"
        described["labels"] = {"background": 0, "anterior": 1, "posterior": 2, "ignore": 3}
    (folder / "dataset.json").write_text(json.dumps(described))
    return name


def train(kind: str, name: str) -> Path:
    """Plans with few features, preprocesses, and trains for two epochs of one step."""
    number = int(name[7:10])
    extract_fingerprint_dataset(number, num_processes=1)
    planner = (ExperimentPlanner if kind == "plain" else nnUNetPlannerResEncM)(number)
    planner.UNet_base_num_features, planner.UNet_max_features_3d = 4, 6
    if kind == "residual":
        planner.UNet_blocks_per_stage_encoder = (1, 2, 2, 2, 2, 2, 2)
    planner.plan_experiment()
    preprocess_dataset(number, planner.plans_identifier, ["3d_fullres"], [1])
    torch.manual_seed(0)
    os.environ.update(nnUNet_n_proc_DA="0")  # augmentation in this process
    trainer = get_trainer_from_args(
        name, "3d_fullres", 0, plans_identifier=planner.plans_identifier, device=torch.device("cpu")
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch = 2, 1
    trainer.num_val_iterations_per_epoch, trainer.initial_lr = 1, 0.1
    trainer.run_training()
    return Path(trainer.output_folder_base)


def predict(results: Path, kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Logits by nnU-Net of one image that is stored in several orientations."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(results), ("0",))
    plans = predictor.plans_manager
    image = rng.normal(100, 30, (2, *SHAPE)).astype(np.int16)
    kept = {"image": image}
    for stored in STORED[kind]:
        turn = orientations.ornt_transform(
            orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(stored)
        )
        paths = []
        for channel in range(2):
            ras = nib.Nifti1Image(image[channel], np.diag([*SPACING_MM, 1.0]))
            paths.append(str(WORK / f"{stored}_{channel:04d}.nii.gz"))
            nib.save(ras.as_reoriented(turn), paths[-1])
        # A case stored otherwise has other axes; the plans' spacing would resample it.
        spacing = predictor.configuration_manager.configuration["spacing"]
        reader = plans.image_reader_writer_class()
        _, properties = reader.read_images(paths)
        own = [properties["spacing"][axis] for axis in plans.transpose_forward]
        predictor.configuration_manager.configuration["spacing"] = own
        data, _, _ = predictor.configuration_manager.preprocessor_class(verbose=False).run_case(
            paths, None, plans, predictor.configuration_manager, predictor.dataset_json
        )
        predictor.configuration_manager.configuration["spacing"] = spacing
        with torch.no_grad():
            logits = predictor.network.eval()(torch.as_tensor(data)[None])[0].numpy()
        # Back as nnU-Net exports predictions: transposed, and written as (x, y, z).
        logits = logits.transpose([0, *[axis + 1 for axis in plans.transpose_backward]])
        logits = logits.transpose(0, 3, 2, 1)
        if "Reorient" in plans.plans["image_reader_writer"]:
            kept[stored] = logits
            continue
        affine = nib.load(paths[0]).affine
        kept[stored] = np.stack(
            [nib.as_closest_canonical(nib.Nifti1Image(c, affine)).get_fdata() for c in logits]
        ).astype(np.float32)
    return kept


def main(kind: str) -> None:
    """Makes one folder."""
    rng = np.random.default_rng(0)
    results = train(kind, write_dataset(kind, rng))
    kept = predict(results, kind, rng)
    target = HERE / kind / results.name
    shutil.rmtree(HERE / kind, ignore_errors=True)
    (target / "fold_0").mkdir(parents=True)
    for file in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        shutil.copy(results / file, target / file)
    np.savez_compressed(HERE / kind / "reference.npz", **kept)
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main(sys.argv[1])
