"""The zoo given straight to the commands: a clear word, never a traceback, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from hsf_finetune.cli.main import main
from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.evaluate import evaluate_files
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.system.errors import UserError
from tests.zoo.cohorts import MSD, VICTIM, WHY_SKIPPED
from tests.zoo.defect import Defect
from tests.zoo.zoo import DEFECTS, Zoo

pytestmark = pytest.mark.skipif(not MSD.is_dir(), reason=WHY_SKIPPED)

TRAINED_ON = ("other contrast", "stored as LPS", "stray voxels")
"""Defects that are said and trained on all the same."""
SCANS = [d for d in DEFECTS if d.cohort == "msd"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def trained(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the clean cohort."""
    settings = zoo.settings(zoo.clean("msd").root)
    return run_experiment(
        settings.model_copy(update={"run_dir": str(tmp_path_factory.mktemp("run"))})
    ).folder


def commands(zoo: Zoo, root: Path, defect: Defect, trained: Path) -> list[Settings]:
    """The settings of train and of finetune from the clean run."""
    scratch = zoo.settings(root, defect.overrides, "train")
    tuned = zoo.settings(root, defect.overrides, "finetune")
    weights = tuned.weights.model_copy(update={"pretrained": str(trained)})
    return [scratch, tuned.model_copy(update={"weights": weights})]


@pytest.mark.parametrize(
    "defect", [d for d in DEFECTS if d.tier != "repaired"], ids=lambda defect: defect.name
)
def test_train_and_finetune_refuse(zoo: Zoo, defect: Defect, trained: Path) -> None:
    cohort, _ = zoo.damaged(defect)
    strict = {"check": "strict"} if defect.tier == "warned" else {}
    for settings in commands(zoo, cohort.root, defect, trained):
        with pytest.raises(UserError) as caught:
            run_experiment(settings.model_copy(update=strict))
        assert all(word in str(caught.value) for word in defect.words), str(caught.value)
        assert not zoo.outputs.exists(), "nothing is written before the data fit"


@pytest.mark.parametrize("name", TRAINED_ON)
def test_what_is_not_refused_is_said(
    zoo: Zoo, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    defect = next(d for d in DEFECTS if d.name == name)
    cohort, _ = zoo.damaged(defect)
    settings = zoo.settings(cohort.root, defect.overrides)
    run = run_experiment(settings.model_copy(update={"run_dir": str(tmp_path / "run")})).folder
    said = capsys.readouterr().out
    assert f"1 {defect.tier}" in said
    if defect.tier == "warned":
        assert all(word in said for word in defect.words)
    assert (run / "check.json").exists()


@pytest.mark.parametrize("defect", SCANS, ids=lambda defect: defect.name)
def test_predict_segments_on_the_scans_own_grid_or_says_why_not(
    zoo: Zoo, defect: Defect, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, file = zoo.damaged(defect)
    number = min(VICTIM, len(cohort) - 1)
    scan, out = cohort.image(number), tmp_path / "out"
    (result,) = segment_files(Predictor.load(trained, device="cpu"), [scan], out)
    said = capsys.readouterr().out
    if result.status == "failed":
        assert str(scan) in said
        assert not list(tmp_path.glob("out/*"))
        return
    written, original = nib.load(out / scan.name), nib.load(scan)
    assert written.shape == original.shape
    assert np.allclose(written.affine, original.affine, atol=1e-4)
    about_the_image = file == scan and ("content/" in kinds(zoo, defect, cohort.root))
    if about_the_image and defect.name != "other contrast":
        assert "segmented with a warning" in said


def kinds(zoo: Zoo, defect: Defect, root: Path) -> str:
    """What the check calls a defect."""
    from hsf_finetune.check.check_data import check_data

    settings = zoo.settings(root, defect.overrides)
    return " ".join(finding.kind for finding in check_data(settings, jobs=1).findings)


@pytest.mark.parametrize("defect", SCANS, ids=lambda defect: defect.name)
def test_evaluate_scores_or_says_why_not(zoo: Zoo, defect: Defect, tmp_path: Path) -> None:
    cohort, file = zoo.damaged(defect)
    if file != cohort.root / "labelsTr" / file.name or not file.is_file():
        return
    clean = zoo.clean("msd").label()
    scores = tmp_path / "scores.csv"
    refused: UserError | None = None
    try:
        evaluate_files(clean, file, {1: "anterior", 2: "posterior"}).save(scores)
    except UserError as error:
        refused = error
    assert scores.exists() == (refused is None)
    assert refused is None or str(file) in str(refused) or str(clean) in str(refused)


def test_check_writes_a_report_and_exits_with_its_tier(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name = {d.name: d for d in DEFECTS}
    for name, flags, code in (
        ("truncated image", [], 2),
        ("stray voxels", ["--strict"], 1),
        ("stray voxels", [], 0),
    ):
        folder = tmp_path / f"{name}{len(flags)}"
        cohort, file = zoo.damaged(by_name[name])
        report = folder / "report"
        given = ["check", "datasets=msd_hippocampus", f"datasets.main_path={cohort.root}"]
        with pytest.raises(SystemExit) as caught:
            main([*given, "-o", str(report), "--jobs", "1", *flags])
        assert caught.value.code == code
        assert str(file) in capsys.readouterr().out
        found = {p.relative_to(report).as_posix() for p in report.rglob("*") if p.is_file()}
        picture = f"pictures/msd_hippocampus__imagesTr__{file.name.split('.')[0]}.png"
        assert found == {"check.json", "ledger.csv"} | ({picture} if code < 2 else set())
        ledger = (report / "ledger.csv").read_text().splitlines()
        assert len(ledger) == 1 + 16
        assert sum(by_name[name].tier in line for line in ledger) == 1


def test_check_takes_a_dataset_yaml(zoo: Zoo, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "main_path": str(zoo.clean("msd").root),
                "datasets": {
                    "lab": {
                        "path": ".",
                        "patterns": {"t1": {"mri": "imagesTr/*.gz", "label": "labelsTr/*.gz"}},
                        "labels_names": {1: "anterior", 2: "posterior"},
                    }
                },
            }
        )
    )
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            main(["check", str(file), "-o", str(tmp_path / "report"), "--strict"])
        assert caught.value.code == 0
