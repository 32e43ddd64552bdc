"""Exports in the programs that they are for, each installed in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import hsf_finetune as hf
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import (
    ARUNetHparams,
    ARUNetSettings,
    BasicUNetSettings,
    DynUNetSettings,
    NetworkSettings,
    NnUNetSettings,
    SegResNetSettings,
)
from hsf_finetune.experiment.run import run_experiment
from tests.conftest import CONF, FAST
from tests.export.models import SMALL, random_model, save_scan

pytestmark = pytest.mark.clients

NETWORKS: list[NetworkSettings] = [
    SMALL,
    ARUNetSettings(hparams=ARUNetHparams(f_maps=4)),
    DynUNetSettings(channels=[4, 6, 8, 8]),
    SegResNetSettings(init_filters=4),
    BasicUNetSettings(features=[4, 4, 6, 8, 8, 4]),
    NnUNetSettings(features_per_stage=[4, 6, 8, 8]),
]
RAS = np.diag([0.7, 0.8, 0.9, 1.0])


def environment(name: str) -> Path:
    """The folder with the programs of a client's environment."""
    folder = os.environ.get(f"HSF_FINETUNE_ENV_{name}")
    if not folder:
        pytest.skip("make test-clients makes the environment")
    return Path(folder) / "bin"


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda s: s.name)
def test_hsf_gives_the_same_segmentation(settings: NetworkSettings, tmp_path: Path) -> None:
    python = environment("HSF") / "python"
    model = random_model(settings)
    crop = save_scan(tmp_path / "crop.nii.gz", (56, 45, 71), RAS)
    hf.export(model, "hsf", tmp_path / "made", scan=crop)
    out = tmp_path / "out.nii.gz"
    run(python, Path(__file__).with_name("run_hsf.py"), tmp_path / "made", "made", crop, out)
    channels = np.asarray(nib.load(out).dataobj).astype(int)
    values = np.array([model.card.label_values[name] for name in model.card.classes])
    # Rounding decides where two classes tie, as they often do with random weights; padding at
    # the end instead would change 3 of 100 voxels.
    assert np.mean(values[channels] != model.predict(crop).labels) < 5e-5
    assert len(np.unique(channels)) == 3


def test_the_command_of_hsf_finds_the_model_of_a_moved_export(tmp_path: Path) -> None:
    python = environment("HSF") / "python"
    hf.export(random_model(), "hsf", tmp_path / "made", proof=False)
    (tmp_path / "made").rename(tmp_path / "moved")
    # The program `hsf` first asks an index for the newest version.
    code = "from hsf.factory import main; main()"
    config = tmp_path / "moved" / "config"
    shown = run(
        python,
        "-W",
        "ignore",
        "-c",
        code,
        "--config-dir",
        config,
        "segmentation=made",
        "files.path=SCANS",
        "files.pattern=*",
        "--cfg",
        "job",
        "--resolve",
    )
    folder = yaml.safe_load(shown)["segmentation"]["models_path"]
    assert Path(folder).resolve() == (tmp_path / "moved" / "models").resolve()


def test_nnunet_gives_nearly_the_same_segmentation(data: Path, tmp_path: Path) -> None:
    """It rounds logits to 16 bits."""
    programs = environment("NNUNET")
    trained = run_experiment(
        compose(
            "train",
            [
                "datasets=tiny_source",
                f"datasets.main_path={data}",
                f"datasets.output_path={tmp_path}",
                "lightning.max_epochs=12",
                *(one for one in FAST if not one.startswith("models.")),
                "models=nnunet",
                "models.lr=1e-2",
                "models.features_per_stage=[8,12,16]",
                "preprocessing.padding=symmetric",
                "preprocessing.padded_size=window",
            ],
            CONF,
        )
    )
    export = [programs / "hsf-finetune", "export", trained.folder, "--to", "nnunet"]
    assert "proved: " in run(*export, "-o", tmp_path / "made")
    scans = sorted((data / "tiny").glob("*/*_T2w.nii.gz"))
    (tmp_path / "scans").mkdir()
    for number, scan in enumerate(scans):
        (tmp_path / "scans" / f"case{number}_0000.nii.gz").write_bytes(scan.read_bytes())
    results = next((tmp_path / "made").glob("Dataset999_made/*"))
    predict = programs / "nnUNetv2_predict_from_modelfolder"
    command = [predict, "-m", results, "-f", "0", "--disable_tta", "-device", "cpu"]
    run(*command, "-i", tmp_path / "scans", "-o", tmp_path / "out", "-npp", "1", "-nps", "1")
    for number, scan in enumerate(scans):
        found = np.asarray(nib.load(tmp_path / "out" / f"case{number}.nii.gz").dataobj) == 1
        expected = trained.model.predict(scan).labels == 10
        dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert expected.any()
        assert dice >= 0.999


def test_the_command_of_monai_runs_a_bundle(tmp_path: Path) -> None:
    model, scan = random_model(), save_scan(tmp_path / "scan.nii.gz")
    hf.export(model, "bundle", tmp_path / "made", scan=scan)
    folder = tmp_path / "made"
    run(
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--bundle_root",
        folder,
        "--config_file",
        folder / "configs" / "inference.json",
        "--dataset_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "out",
    )
    found = np.asarray(nib.load(tmp_path / "out" / "scan_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(found, model.predict(scan).labels)
