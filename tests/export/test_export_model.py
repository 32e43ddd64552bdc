"""An export is complete and proved, or it does not exist."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import hsf_finetune as hf
from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.export import export_model
from hsf_finetune.export.export_model import DOORS
from hsf_finetune.inference.calibration import Calibration
from hsf_finetune.inference.ensemble import Ensemble
from hsf_finetune.inference.postprocessing import Postprocessing, PostprocessingStep
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError, DataError, OutputError
from tests.conftest import CONF, FAST
from tests.export.models import OF_NNUNET, SMALL, VALUES, random_model, save_scan

every_door = pytest.mark.parametrize("door", sorted(DOORS))


@every_door
def test_an_export_is_complete_and_proved(door: str, tmp_path: Path) -> None:
    model = random_model(OF_NNUNET if door == "nnunet" else SMALL)
    proof = not DOORS[door].missing_packages()
    exported = hf.export(
        model, door, tmp_path / "my-model", scan=save_scan(tmp_path / "a.nii.gz"), proof=proof
    )
    assert (exported.proof is not None) == proof
    folder = tmp_path / "my-model"
    readme = (folder / "README.md").read_text()
    assert exported.usage in readme
    if exported.proof is not None:
        assert exported.proof.share >= DOORS[door].least_equal
        assert exported.proof.segmented > 1000
        assert exported.proof.line() in readme
    assert str(tmp_path) not in readme
    listed = {}
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digits, name = line.split("  ")
        listed[name] = digits
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert listed == {n: Checksum.of_file(p).digits for n, p in files.items() if n != "SHA256SUMS"}
    assert {"README.md", "LICENSE", "model_card.json"} < set(listed)
    card = json.loads((folder / "model_card.json").read_text())
    assert card["classes"] == ["background", "anterior", "posterior"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "my-model"]


@pytest.mark.parametrize("door", ["checkpoint", "onnx"])
def test_what_validation_taught_is_carried_or_named(door: str, tmp_path: Path) -> None:
    step = PostprocessingStep("small", ("posterior",), 1e9)
    learned = Calibration((2.0,), 4, True, (-0.2, -0.1), (0.04, 0.02))
    plain = random_model()
    card = replace(plain.card, postprocessing=Postprocessing((step,)), calibration=learned)
    model, scan, folder = plain.with_card(card), save_scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    expected = (model if door == "checkpoint" else plain).predict(scan).labels
    assert (model.predict(scan).labels != plain.predict(scan).labels).any()
    if DOORS[door].missing_packages():
        pytest.skip("the runtime is not installed")
    exported = hf.export(model, door, folder, scan=scan)
    assert exported.proof
    assert exported.proof.segmented == pytest.approx(np.count_nonzero(expected), rel=0.001)
    readme = (folder / "README.md").read_text()
    for text in ("pieces of posterior below 1000000000 mm3", "calibration: temperature 2.00"):
        assert (text in readme) == (door == "onnx")
    assert json.loads((folder / "model_card.json").read_text())["postprocessing"]
    if door == "checkpoint":
        assert hf.load_model(folder, device="cpu").card == card


@every_door
def test_an_export_is_never_written_over_something(door: str, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(OutputError, match="never written over"):
        hf.export(random_model(), door, taken, proof=False)
    assert taken.read_text() == "mine"


def test_a_failed_proof_leaves_nothing(tmp_path: Path) -> None:
    """HSF takes a scan with its empty margin, which changes its mean and standard deviation."""
    scan = save_scan(tmp_path / "scan.nii.gz")
    image = nib.load(scan)
    wide = np.pad(image.get_fdata(), ((9, 0), (0, 9), (9, 9)))
    nib.save(nib.Nifti1Image(wide.astype(np.float32), image.affine), scan)
    before = scan.read_bytes()
    with pytest.raises(OutputError, match="segments otherwise than the model"):
        hf.export(random_model(), "hsf", tmp_path / "made", scan=scan)
    assert [p.name for p in tmp_path.iterdir()] == ["scan.nii.gz"]
    assert scan.read_bytes() == before


def test_a_scan_without_structure_proves_nothing(tmp_path: Path) -> None:
    model = random_model()
    model.anatomy.network.head.bias.data[0] = 1e3
    with pytest.raises(DataError, match="proves nothing"):
        hf.export(model, "checkpoint", tmp_path / "made", scan=save_scan(tmp_path / "a.nii.gz"))
    assert not (tmp_path / "made").exists()


def test_without_its_runtime_an_export_is_refused_or_unproved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = replace(DOORS["onnx"], packages={"onnx": "onnx", "no_such_module": "no-such-package"})
    monkeypatch.setattr(export_model, "DOORS", {"onnx": door})
    scan = save_scan(tmp_path / "a.nii.gz")
    with pytest.raises(ConfigError, match="pip install no-such-package; or --no-proof"):
        hf.export(random_model(), "onnx", tmp_path / "made", scan=scan)
    assert not (tmp_path / "made").exists()
    exported = hf.export(random_model(), "onnx", tmp_path / "made", proof=False)
    assert "not proved" in str(exported)
    assert "has not been proved" in (tmp_path / "made" / "README.md").read_text()


@pytest.mark.parametrize(
    "made_of",
    [lambda model: Ensemble([model, model]), lambda model: model.with_views("shift")],
    ids=["ensemble", "views"],
)
def test_a_model_of_several_passes_is_refused(
    made_of: Callable[[Predictor], ScanModel], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="holds one network, which segments") as refusal:
        hf.export(made_of(random_model()), "checkpoint", tmp_path / "made", proof=False)
    assert refusal.value.fix
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("run", ["run", "checkpoint"])
def test_the_command_proves_a_run_on_its_validation_case(
    run: str, source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(source_run, copy)
    origin = {"name": "theirs.ckpt", "licence": "CC-BY-4.0", "citation": "Somebody (2020)"}
    (copy / "transfer.json").write_text(json.dumps({"origin": origin}))
    model = copy if run == "run" else copy / "checkpoints" / "best.ckpt"
    with pytest.raises(SystemExit) as stop:
        main(["export", str(model), "--to", "checkpoint", "-o", str(tmp_path / "made")])
    assert not stop.value.code
    assert "proved: 100.00% of the segmented voxels" in capsys.readouterr().out
    text = (tmp_path / "made" / "LICENSE").read_text()
    assert all(value in text for value in origin.values())


def test_a_checkpoint_alone_needs_a_scan(source_run: Path, tmp_path: Path) -> None:
    shutil.copy(source_run / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    with pytest.raises(ConfigError, match="--scan FILE, or --no-proof"):
        hf.export(tmp_path / "alone.ckpt", "checkpoint", tmp_path / "made")


@every_door
def test_fine_tuning_from_an_export_starts_with_the_same_segmentations(
    door: str, data: Path, tmp_path: Path
) -> None:
    """The same baseline Dice, then; of a scan with an empty margin, too, which is left out."""
    model = random_model(OF_NNUNET if door == "nnunet" else SMALL)
    hf.export(model, door, tmp_path / "made", proof=False)
    setup = hf.plan(
        compose(
            "finetune",
            [
                "datasets=tiny",
                f"datasets.main_path={data}",
                f"datasets.output_path={tmp_path}",
                f"finetuning.pretrained={tmp_path / 'made'}",
                "models=pretrained",
                *(one for one in FAST if not one.startswith("models.")),
            ],
            CONF,
        ),
        forecast=False,
    )
    start = Predictor(setup.anatomy, setup.card, torch.device("cpu"))
    scan = nib.load(save_scan(tmp_path / "scan.nii.gz"))
    wide = np.pad(scan.get_fdata(), ((9, 0), (0, 9), (9, 9)))
    expected = model.predict((wide, scan.affine))
    found = start.predict((wide, scan.affine))
    for name in VALUES:
        inside = expected.labels == expected.label_values[name]
        assert inside.any()
        np.testing.assert_array_equal(found.labels == found.label_values[name], inside)
