"""Exports in the programs that they are for, each installed in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

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
    Settings,
)
from hsf_finetune.convert.dataset_as_nnunet import PLANS_NAME, SPLITS_FILE
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.experiment.run_result import RunResult
from hsf_finetune.inference.predictor import Predictor
from tests.conftest import CONF, FAST, oblique_affine
from tests.export.models import (
    SMALL,
    VALUES,
    fitted_model,
    random_model,
    save_scan,
    save_tissues,
)

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
REPOSITORY = Path(__file__).parents[2]


def environment(name: str) -> Path:
    """The folder with the programs of a client's environment."""
    folder = os.environ.get(f"HSF_FINETUNE_ENV_{name}")
    if not folder:
        pytest.skip("make test-clients makes the environment")
    return Path(folder) / "bin"


def run(*command: str | Path, **variables: str | Path) -> str:
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def turned(path: Path, axes: str) -> Path:
    """A scan with its voxel axes in another order, beside it."""
    image = nib.load(path)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(axes))
    target = path.with_name(f"{axes.lower()}.nii.gz")
    nib.save(image.as_reoriented(turn), target)
    return target


@pytest.fixture(scope="module")
def segmented_by_hsf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crop, and HSF's segmentation of it with each network, in one process."""
    python, folder = environment("HSF") / "python", tmp_path_factory.mktemp("hsf")
    crop = save_tissues(folder / "crop.nii.gz", (56, 45, 71), RAS)
    for settings in NETWORKS:
        model = fitted_model(settings)
        hf.export(model, "hsf", folder / "exports" / settings.name, scan=crop)
        model.predict(crop).save(folder / f"{settings.name}_own.nii.gz")
    exports = sorted((folder / "exports").iterdir())
    files = [file for e in exports for file in (e, crop, folder / f"{e.name}.nii.gz")]
    run(python, Path(__file__).with_name("run_hsf.py"), *files)
    return folder


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda s: s.name)
def test_hsf_gives_the_same_segmentation(settings: NetworkSettings, segmented_by_hsf: Path) -> None:
    values = np.array(list(VALUES.values()))
    channels = np.asarray(nib.load(segmented_by_hsf / f"{settings.name}.nii.gz").dataobj)
    own = np.asarray(nib.load(segmented_by_hsf / f"{settings.name}_own.nii.gz").dataobj)
    differing = int(np.count_nonzero(values[channels.astype(int)] != own))
    print(f"HSF and predict, {settings.name}: {differing} of {own.size} voxels differ")
    assert differing == 0
    assert len(np.unique(own)) == 3


def test_the_command_of_hsf_finds_the_model_of_a_moved_export(tmp_path: Path) -> None:
    python = environment("HSF") / "python"
    hf.export(random_model(), "hsf", tmp_path / "made", proof=False)
    (tmp_path / "made").rename(tmp_path / "moved")
    # The program `hsf` first asks an index for the newest version.
    code = "from hsf.factory import main; main()"
    config = ["--config-dir", tmp_path / "moved" / "config", "segmentation=made"]
    shown = run(
        python,
        *("-W", "ignore", "-c", code, *config),
        *("files.path=SCANS", "files.pattern=*", "--cfg", "job", "--resolve"),
    )
    folder = yaml.safe_load(shown)["segmentation"]["models_path"]
    assert Path(folder).resolve() == (tmp_path / "moved" / "models").resolve()


def tiny_settings(task: str, data: Path, output: Path, *more: str) -> Settings:
    """Of a run on a few phantoms."""
    folders = [f"datasets.main_path={data}", f"datasets.output_path={output}"]
    fast = [one for one in FAST if not one.startswith("models.")]
    return compose(task, ["datasets=tiny_source", *folders, *fast, *more], CONF)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of a network of nnU-Net, padded as nnU-Net pads."""
    settings = tiny_settings(
        *("train", data, tmp_path_factory.mktemp("trained")),
        *("models=nnunet", "models.lr=1e-2", "models.features_per_stage=[8,12,16]"),
        *("preprocessing.padding=symmetric", "preprocessing.padded_size=window"),
        *("datasets.patch_vox=[24,24,24]", "datasets.window_vox=[24,24,24]"),
        "lightning.max_epochs=12",
    )
    return run_experiment(settings)


@pytest.fixture(scope="module")
def trained_unet(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of a network that every other door carries."""
    settings = tiny_settings(
        *("train", data, tmp_path_factory.mktemp("trained_unet"), "models.lr=1e-2"),
        *("models.channels=[4,6,8,8]", "models.strides=[2,2,2]", "models.features=4"),
        "lightning.max_epochs=8",
    )
    return run_experiment(settings)


def baseline_dice(pretrained: Path, data: Path, output: Path) -> list[float]:
    """Dice of each validation case before fine-tuning from these weights."""
    start = ("models=pretrained", f"finetuning.pretrained={pretrained}")
    setup = hf.plan(tiny_settings("finetune", data, output, *start), forecast=False)
    model = Predictor(setup.anatomy, setup.card, torch.device("cpu"))
    return [row.score.dice for row in score_cases(model, setup.split.side("validation"))]


@pytest.mark.parametrize("door", ["checkpoint", "hsf", "onnx", "bundle", "nnunet"])
def test_fine_tuning_from_an_export_has_the_same_baseline(
    door: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue("trained" if door == "nnunet" else "trained_unet")
    expected = baseline_dice(run.folder, data, tmp_path)
    hf.export(run.folder, door, tmp_path / "made", proof=False)
    found = baseline_dice(tmp_path / "made", data, tmp_path)
    shown = [f"{one:.5f}" for one in found]
    print(f"baseline Dice of the export to {door}: {', '.join(shown)}, as of the run")
    assert found == expected
    assert max(found) > 0.1


def test_the_command_of_nnunet_gives_nearly_the_same_segmentation(
    trained: RunResult, data: Path, tmp_path: Path
) -> None:
    """It rounds logits to 16 bits. Scans are oblique; one has odd sizes, one axes P, I, R."""
    programs = environment("NNUNET")
    export = ["-m", "hsf_finetune", "export", trained.folder, "--to", "nnunet"]
    found = run(programs / "python", *export, "-o", tmp_path / "made", PYTHONPATH=REPOSITORY)
    assert "proved: " in found
    scans = tmp_path / "scans"
    scans.mkdir()
    files = sorted((data / "tiny").glob("*/*_T2w.nii.gz"))[:2]
    for number, file in enumerate(files):
        (scans / f"whole{number}.nii.gz").write_bytes(file.read_bytes())
    nib.save(nib.load(files[0]).slicer[1:, :23, 2:15], scans / "odd.nii.gz")
    turned(scans / "whole1.nii.gz", "PIR")
    for scan in scans.iterdir():
        scan.rename(scan.with_name(scan.name.replace(".nii.gz", "_0000.nii.gz")))
    model = ["-d", "999", "-c", "3d_fullres", "-f", "0", "--disable_tta", "-device", "cpu"]
    files = ["-i", scans, "-o", tmp_path / "out", "-npp", "1", "-nps", "1"]
    run(programs / "nnUNetv2_predict", *model, *files, nnUNet_results=tmp_path / "made")
    for scan in sorted(scans.iterdir()):
        name = scan.name.replace("_0000", "")
        labels = np.asarray(nib.load(tmp_path / "out" / name).dataobj) == 1
        expected = trained.model.predict(scan).labels == 10
        dice = 2 * (labels & expected).sum() / (labels.sum() + expected.sum())
        print(f"nnUNetv2_predict and predict, {name}: Dice {dice:.5f}")
        assert expected.any()
        assert dice >= 0.999


def test_nnunet_takes_a_converted_run(trained: RunResult, tmp_path: Path) -> None:
    """Its own verification passes, and it prepares the cases by the plans of the run."""
    programs, raw = environment("NNUNET"), tmp_path / "raw" / "Dataset123_Tiny"
    run(sys.executable, "-m", "hsf_finetune", "convert", trained.folder, "-o", raw)
    prepared = tmp_path / "prepared"
    folders = {"nnUNet_raw": raw.parent, "nnUNet_preprocessed": prepared}
    few = ["-np", "1", "-c", "3d_fullres"]
    verify = ["-d", "123", "--verify_dataset_integrity", "-npfp", "1"]
    found = run(programs / "nnUNetv2_plan_and_preprocess", *verify, *few, **folders)
    assert "verify_dataset_integrity Done" in found
    for name in (f"{PLANS_NAME}.json", SPLITS_FILE):
        (prepared / raw.name / name).write_bytes((raw / name).read_bytes())
    ours = ["-d", "123", "-plans_name", PLANS_NAME]
    run(programs / "nnUNetv2_preprocess", *ours, *few, **folders)
    cases = sorted((prepared / raw.name / f"{PLANS_NAME}_3d_fullres").glob("*.pkl"))
    (split,) = json.loads((raw / SPLITS_FILE).read_text())
    assert [file.stem for file in cases] == sorted(split["train"] + split["val"])


def test_the_command_of_monai_runs_a_bundle(tmp_path: Path) -> None:
    """Every scan has odd sizes; one is oblique, one has axes P, I, R."""
    model, scans = random_model(), tmp_path / "scans"
    scans.mkdir()
    save_scan(scans / "straight.nii.gz", (53, 37, 39), RAS)
    turned(save_scan(scans / "oblique.nii.gz", (33, 18, 25), oblique_affine()), "PIR")
    folder = tmp_path / "made"
    hf.export(model, "bundle", folder, scan=scans / "straight.nii.gz")
    config = ["--config_file", folder / "configs" / "inference.json", "--bundle_root", folder]
    files = ["--dataset_dir", scans, "--output_dir", tmp_path / "out"]
    run(sys.executable, "-m", "monai.bundle", "run", *config, *files)
    for scan in sorted(scans.iterdir()):
        name = scan.name.replace(".nii.gz", "_seg.nii.gz")
        labels = np.asarray(nib.load(tmp_path / "out" / name).dataobj)
        differing = int(np.count_nonzero(labels != model.predict(scan).labels))
        print(f"monai.bundle run and predict, {scan.name}: {differing} of {labels.size} differ")
        assert differing == 0
        assert len(np.unique(labels)) == 3
