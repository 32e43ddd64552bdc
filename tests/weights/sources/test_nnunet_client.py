"""A source of nnU-Net segments raw scans as nnU-Net does, by what its plans say alone."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import hsf_finetune as hf
from hsf_finetune.inference.predictor import Predictor
from tests.export.test_clients import environment, run

pytestmark = pytest.mark.clients

REORIENTS, KEEPS = "NibabelIOWithReorient", "SimpleITKIO"


@pytest.mark.parametrize(
    ("network", "channel", "reader", "classes"),
    [
        ("PlainConvUNet", "MR", REORIENTS, "labels"),
        ("PlainConvUNet", "CT", KEEPS, "labels"),
        ("PlainConvUNet", "MR", REORIENTS, "regions"),
        ("ResidualEncoderUNet", "MR", KEEPS, "labels"),
        ("ResidualEncoderUNet", "CT", REORIENTS, "labels"),
    ],
)
def test_predictions_are_those_of_nnunet(
    network: str, channel: str, reader: str, classes: str, tmp_path: Path
) -> None:
    """In six storage orders and two voxel sizes; with -s it prints a row of docs/weights.md.

    CT is anisotropic and normalised by the plan's numbers; MR by z-score within the head.
    """
    programs = environment("NNUNET")
    script = Path(__file__).with_name("run_nnunet.py")
    run(programs / "python", script, tmp_path, network, channel, reader, classes)
    scans, [results] = tmp_path / "scans", list((tmp_path / "results").iterdir())
    predict = programs / "nnUNetv2_predict_from_modelfolder"
    options = ["-m", results, "-f", "0", "--disable_tta", "-device", "cpu", "-npp", "1"]
    run(predict, *options, "-nps", "1", "-i", scans, "-o", tmp_path / "theirs")

    differing, voxels, worst = 0, 0, 0.0
    models: dict[str, Predictor] = {}
    for file in sorted((tmp_path / "theirs").glob("*.nii.gz")):
        # A reader that keeps a file's axes gives the network those, which no plan records.
        stored = "RAS" if reader == REORIENTS or file.name.startswith("large") else file.name[:3]
        if stored not in models:
            settings = [] if stored == "RAS" else [f"finetuning.source_orientation={stored}"]
            models[stored] = hf.load_model(results, device="cpu", settings=settings)
        expected = np.asarray(nib.load(file).dataobj)
        scan = scans / file.name.replace(".nii.gz", "_0000.nii.gz")
        found = int(np.sum(models[stored].predict(scan).labels != expected))
        assert expected.any()
        assert found < 0.001 * expected.size
        assert found < 0.05 * np.count_nonzero(expected)
        differing, voxels = differing + found, voxels + expected.size
        worst = max(worst, found / expected.size)
    cells = (network, channel, reader, classes, f"{differing} of {voxels}", f"{1 - worst:.3%}")
    print("", *cells, "", sep=" | ")
    assert len(models) == (1 if reader == REORIENTS else 6)
