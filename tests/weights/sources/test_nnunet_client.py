"""A source of nnU-Net segments raw scans as nnU-Net does, by what its plans say alone."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import hsf_finetune as hf
from hsf_finetune.config.compose import compose
from hsf_finetune.planning.source_model import source_predictor
from tests.conftest import CONF, FAST
from tests.export.test_clients import environment, run

pytestmark = pytest.mark.clients

REORIENTS, KEEPS = "NibabelIOWithReorient", "SimpleITKIO"


@pytest.mark.parametrize(
    ("network", "channel", "reader"),
    [
        ("PlainConvUNet", "MR", REORIENTS),
        ("PlainConvUNet", "CT", KEEPS),
        ("ResidualEncoderUNet", "MR", KEEPS),
        ("ResidualEncoderUNet", "CT", REORIENTS),
    ],
)
def test_predictions_are_those_of_nnunet(
    network: str, channel: str, reader: str, data: Path, tmp_path: Path
) -> None:
    """CT is anisotropic and normalised by the plan's numbers; MR by z-score within the head."""
    programs = environment("NNUNET")
    script = Path(__file__).with_name("run_nnunet.py")
    run(programs / "python", script, tmp_path, network, channel, reader)
    scans, [results] = tmp_path / "scans", list((tmp_path / "results").iterdir())
    predict = programs / "nnUNetv2_predict_from_modelfolder"
    options = ["-m", results, "-f", "0", "--disable_tta", "-device", "cpu", "-npp", "1"]
    run(predict, *options, "-nps", "1", "-i", scans, "-o", tmp_path / "theirs")

    config = compose(
        "finetune",
        [
            *(one for one in FAST if not one.startswith("models.")),
            "datasets=tiny_source",
            f"datasets.main_path={data}",
            "models=pretrained",
            f"finetuning.pretrained='{results}'",
        ],
        CONF,
    )
    ours = source_predictor(hf.plan(config, forecast=False))
    for file in sorted((tmp_path / "theirs").glob("*.nii.gz")):
        scan = scans / file.name.replace(".nii.gz", "_0000.nii.gz")
        expected = np.asarray(nib.load(file).dataobj)
        found = ours.predict(scan).labels
        differing = int(np.sum(found != expected))
        print(f"{network} {channel} {reader} {file.name}: {differing} of {expected.size} differ")
        assert expected.any()
        assert differing < 0.001 * expected.size
        assert differing < 0.05 * np.count_nonzero(expected)
