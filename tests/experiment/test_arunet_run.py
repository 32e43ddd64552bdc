"""HSF's network from HSF's own checkpoint, fine-tuned, taken on, resumed and used for a scan."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hsf_finetune.data.phantom.write_phantoms import PhantomCohort, write_phantoms
from tests.cli.test_entry_points import exit_code
from tests.networks.architectures.test_arunet import FOLDER, original

pytestmark = original

HSF_CLASSES = "[background, DG, CA1, CA2, CA3, SUB]"
"""In the order of HSF's outputs; the checkpoint does not record them."""
QUICK = (
    *("datasets=custom", "augmentation=none", "logger=csv", "datasets.few_subjects=0"),
    "report=off",
    *("lightning.accelerator=cpu", "lightning.threads=1", "lightning.forecast=false"),
    *("datasets.k_sample=2", "finetuning.depth=1", "finetuning.unfreeze_frequency=1"),
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom cohort as small as can be."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantoms(folder, PhantomCohort(0, 1, 2, (16, 24, 16), 2.0))
    return folder


@pytest.fixture(scope="module")
def finetuned(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HSF's six classes, fine-tuned to the phantom's eight."""
    outputs = tmp_path_factory.mktemp("arunet")
    assert not exit_code(
        *("finetune", *QUICK, "models=arunet", "models.hparams.f_maps=8"),
        f"finetuning.pretrained={FOLDER / 'arunet8_perturbed.ckpt'}",
        "finetuning.out_channels=8",
        f"finetuning.source_classes={HSF_CLASSES}",
        "finetuning.derive_from={PRESUB: SUB, PARASUB: SUB}",
        f"datasets.main_path={scans}",
        f"run_dir={outputs / 'run'}",
    )
    return outputs / "run"


def test_its_head_came_from_six_classes_by_name(finetuned: Path) -> None:
    receipt = json.loads((finetuned / "transfer.json").read_text())
    assert receipt["counts"] == {"loaded": 189, "remapped": 2}
    assert receipt["share_parameters"] == 1
    rules = {rule["target"]: (rule["rule"], *rule["sources"]) for rule in receipt["channels"]}
    kept = ("background", "DG", "CA1", "CA2", "CA3", "SUB")
    parts = {name: ("split", "SUB") for name in ("PRESUB", "PARASUB")}
    assert rules == {name: ("copied", name) for name in kept} | parts
    shifts = [rule["bias_shift"] for rule in receipt["channels"]]
    assert shifts == pytest.approx([0] * 5 + [-np.log(3)] * 3), "SUB shares its probability"
    assert receipt["head_check"]["agreement"] > 0.999


def test_it_trained(finetuned: Path) -> None:
    with (finetuned / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2
    assert all(np.isfinite(losses))
    theirs = torch.load(FOLDER / "arunet8_perturbed.ckpt", weights_only=True)["state_dict"]
    ours = torch.load(finetuned / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    moved = {
        name.removeprefix("_model.").split(".")[0]
        for name, tensor in theirs.items()
        if not name.startswith("_model.final_conv")
        and not torch.equal(tensor, ours[name.replace("_model.", "network.", 1)])
    }
    assert moved == {"decoders"}, "head and one block unfrozen"


def test_it_segments_a_scan_on_its_own_grid(finetuned: Path, scans: Path, tmp_path: Path) -> None:
    scan = next((scans / "target_T2w").rglob("*_T2w.nii.gz"))
    assert not exit_code("predict", finetuned, scan, "-o", tmp_path)
    (written,) = tmp_path.rglob("*.nii.gz")
    found, given = nib.load(written), nib.load(scan)
    assert found.shape == given.shape
    assert np.array_equal(found.affine, given.affine)
    assert set(np.unique(found.dataobj)) <= set(range(8))


@pytest.mark.parametrize("given", ["a run", "HSF's file"])
def test_the_weights_tell_the_network(
    given: str, finetuned: Path, scans: Path, tmp_path: Path
) -> None:
    pretrained = {"a run": finetuned, "HSF's file": FOLDER / "arunet8_perturbed.ckpt"}[given]
    run = tmp_path / "run"
    names = () if given == "a run" else (f"finetuning.source_classes={HSF_CLASSES}",)
    command = (
        *("finetune", *QUICK, "models=pretrained", *names, "lightning.max_epochs=1"),
        *(f"finetuning.pretrained={pretrained}", f"datasets.main_path={scans}", f"run_dir={run}"),
    )
    assert not exit_code(*command)
    receipt = json.loads((run / "transfer.json").read_text())
    expected = {"loaded": 191} if given == "a run" else {"loaded": 189, "remapped": 2}
    assert receipt["counts"] == expected
    # What was trained says what it is, so that neither prediction nor a resume needs the source.
    card = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["hsf_finetune"]
    assert card["models"]["name"] == "arunet"
    assert card["models"]["hparams"]["f_maps"] == 8
    assert not exit_code(*command[:-1], f"resume={run}", "lightning.max_epochs=2")
    with (run / "metrics.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [0, 1]
