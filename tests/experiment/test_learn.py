"""Learning from corrected segmentations: what is taken, what is refused, what is written down."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.splits import ALSO_TRAINED
from hsf_finetune.evaluation.metrics import ClassScore
from hsf_finetune.evaluation.score_tables import ScoreRow, read_scores
from hsf_finetune.experiment import earlier_cases
from hsf_finetune.experiment.learn import LearnResult, learn
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.formats.colour_tables import itksnap_text
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.quality_model import QualityModel
from hsf_finetune.inference.rewrite_card import rewrite_card
from hsf_finetune.labels.label_colours import LabelRow
from hsf_finetune.report.save_report import save_report
from hsf_finetune.system.errors import UserError
from hsf_finetune.system.run_folder import GIVEN
from tests.conftest import CONF, FAST, save_nifti, tiny_case
from tests.experiment.test_retention import settings as retention_settings


def save_case(folder: Path, number: int) -> Path:
    """A scan of a new person, and its true label of one class."""
    image, drawn = tiny_case(number)
    save_nifti(folder / "scans" / f"sub-{number}.nii.gz", image)
    path = folder / "labels" / f"sub-{number}.nii.gz"
    return save_nifti(path, np.where(drawn > 0, 10, 0).astype(np.uint8))


def learn_from(run: Path, folder: Path, output: Path) -> LearnResult:
    return learn(run, folder / "labels", output, folder / "scans", steps=4)


def test_two_rounds(source_run: Path, tmp_path: Path) -> None:
    # As `next` writes them, with links to the scans: no folder of scans is given.
    first = tmp_path / "next"
    label = save_case(first, 8)
    (first / "images").mkdir()
    (first / "images" / "sub-8.nii.gz").symlink_to(first / "scans" / "sub-8.nii.gz")
    (first / "next.tsv").write_text("rank\tscan\n")
    one = learn(source_run, first, tmp_path / "one", steps=4)
    assert [c.changed > 0 for c in one.corrections] == [True]
    assert not one.trained
    assert one.losses.keys() == {row.case for row in one.run.before}
    record = json.loads((tmp_path / "one" / GIVEN / "corrections.json").read_text())
    assert record["model"] == str(source_run)
    assert record["corrections"][0]["from"] == str(label.resolve())
    assert record["corrections"][0]["scan"] == [str((first / "scans" / "sub-8.nii.gz").resolve())]
    receipt = json.loads((tmp_path / "one" / "transfer.json").read_text())
    assert receipt["source"].startswith(str(source_run))
    # What was learnt from may change or go, and the model goes on from the first round.
    shutil.rmtree(first)
    second = tmp_path / "second"
    save_case(second, 9)
    with pytest.raises(UserError, match=r"cannot be found|no such|does not exist"):
        learn_from(tmp_path / "one", second, tmp_path / "two")
    save_nifti(first / "scans" / "sub-8.nii.gz", tiny_case(8)[0])
    two = learn_from(tmp_path / "one", second, tmp_path / "two")
    splits = [json.loads((run / "splits.json").read_text()) for run in (source_run, two.run.folder)]
    assert splits[1]["validation"] == splits[0]["validation"]
    added = [name for name in splits[1]["train"] if name not in splits[0]["train"]]
    assert [name.split("__")[0] for name in added] == ["corrections_1", "corrections_2"]
    assert {"sub-8", "sub-9"} <= {*splits[1]["subjects"]["train"]}
    rates = [
        read_settings_of(run).models.lr for run in (source_run, one.run.folder, two.run.folder)
    ]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-2])
    kept = [
        (run / GIVEN / "first_scores.csv").read_text() for run in (tmp_path / "one", two.run.folder)
    ]
    assert kept[0] == kept[1]
    assert Predictor.load(two.run.folder).card.label_values == {"background": 0, "blob": 10}


def test_what_is_taken_back_is_learnt_on(
    source_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_cases, "MOST_LOST", -1.0)
    runs = [source_run]
    for number in (8, 9):
        save_case(tmp_path / f"{number}", number)
        made = learn_from(runs[-1], tmp_path / f"{number}", tmp_path / f"run{number}")
        assert made.share == 0
        assert max(made.losses.values()) == 0
        runs.append(made.run.folder)
    before, first, second = (weights_of(run, "last") for run in runs)
    # No model has changed, but the second round trained on from what the first one found.
    assert all(torch.equal(weights_of(run, "best"), weights_of(source_run, "best")) for run in runs)
    assert (second - first).norm() < (second - before).norm()
    assert (second - before).norm() > (first - before).norm() > 0


def test_cases_without_any_class_can_lose_no_dice() -> None:
    def row(case: str, dice: float) -> ScoreRow:
        score = ClassScore("DG", "scored", dice, 1.0, dice, 10.0, 10.0, 0.0)
        return ScoreRow(case, case, score)

    rows = [row("control", math.nan), row("a", math.nan), row("a", 0.5), row("b", 0.25)]
    assert earlier_cases._case_means(rows) == {"a": 0.5, "b": 0.25}


def weights_of(run: Path, checkpoint: str) -> torch.Tensor:
    kept = torch.load(run / "checkpoints" / f"{checkpoint}.ckpt", weights_only=True)["state_dict"]
    return torch.cat([one.flatten().float() for one in kept.values()])


def test_the_sources_task_is_scored_again(data: Path, source_run: Path, tmp_path: Path) -> None:
    made = run_experiment(retention_settings(data, tmp_path / "runs", source_run))
    path = save_case(tmp_path, 8)
    save_nifti(path, tiny_case(8)[1])
    learnt = learn_from(made.folder, tmp_path, tmp_path / "learnt")
    # The old class is the union of those that came out of it.
    scored = {
        row.case.split("__")[0]
        for row in read_scores(tmp_path / "learnt" / GIVEN / "first_scores.csv")
    }
    assert scored == {"tiny", "old"}
    assert len(learnt.losses) == 2 + 5


def test_what_folds_learnt_about_themselves_is_kept(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["datasets=tiny_source", f"datasets.main_path={data}", f"run_dir={tmp_path / 'run'}"]
    folds = ["datasets.fold=all", "datasets.folds=2", "lightning.max_epochs=1"]
    run = run_experiment(compose("train", [*given, *FAST, *folds], CONF)).folder
    best = run / "final" / "checkpoints" / "best.ckpt"
    quality = QualityModel({"blob": 0.0}, 1.0, 0.5, 0.5, 0.8, 0.9, 9, 27)
    known = replace(Predictor.load(run).card, quality=quality)
    assert known.calibration is not None
    rewrite_card(best, known)
    save_case(tmp_path, 8)
    capsys.readouterr()
    learnt = learn_from(run, tmp_path, tmp_path / "learnt")
    made = learnt.run.folder
    assert learnt.trained == f", {ALSO_TRAINED}"
    card = Predictor.load(made).card
    assert (card.calibration, card.quality) == (known.calibration, quality)
    said = " ".join(capsys.readouterr().out.split())
    kept = f"kept from {run / 'final'}, as no case is left to learn it again:"
    assert f"{kept} calibration: " in said
    assert f"{kept} quality: predict foretells" in said
    assert "without calibration" not in said
    written = json.loads((made / "result.json").read_text())
    assert written["calibration"] == known.calibration.to_dict()
    rewrite_card(best, replace(known, calibration=None, quality=None))
    made = learn_from(run, tmp_path, tmp_path / "again").run.folder
    why = "without calibration, post-processing: validation cases trained too, so that no case is"
    assert why in " ".join(capsys.readouterr().out.split())
    save_report(made, tmp_path / "report.html", 0, "cpu")
    assert f"W{why[1:]}" in " ".join((tmp_path / "report.html").read_text().split())


def other_grid(folder: Path) -> None:
    path = save_case(folder, 8)
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 5
    save_nifti(path, np.asarray(image.dataobj), affine)


def other_labels(folder: Path) -> None:
    path = save_case(folder, 8)
    save_nifti(path, np.full((16, 24, 16), 3, np.uint8))


def no_scan(folder: Path) -> None:
    save_case(folder, 8)
    shutil.move(folder / "labels" / "sub-8.nii.gz", folder / "labels" / "other.nii.gz")


def no_scan_behind_a_link(folder: Path) -> None:
    save_case(folder, 8)
    save_case(folder / "elsewhere", 9)
    (folder / "labels" / "more").symlink_to(folder / "elsewhere" / "labels")


def values_of_another_model(folder: Path) -> None:
    save_case(folder, 8)
    rows = [LabelRow(10, "anterior", (1, 2, 3))]
    (folder / "labels" / "labels_itksnap.txt").write_text(itksnap_text(rows))


def held_out(folder: Path) -> None:
    for path in (folder / "labels", folder / "scans"):
        path.mkdir(parents=True)
    for number in range(1, 6):
        save_nifti(folder / "scans" / f"sub-0{number}.nii.gz", tiny_case(number + 20)[0])
        save_nifti(folder / "labels" / f"sub-0{number}.nii.gz", tiny_case(number + 20)[1])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (other_grid, "different grids in space"),
        (other_labels, "labels that the model does not know"),
        (no_scan, "belongs to no scan"),
        (no_scan_behind_a_link, "belongs to no scan"),
        (values_of_another_model, r"(?s)itksnap.*found: +10 anterior.*expected: +10 blob.*remove"),
        (
            held_out,
            r"(?s)learnt from\n.*found: +it is of a subject that validates or tests: .*fix: +move "
            r"its segmentation to another folder: \S+labels/sub-0",
        ),
    ],
)
def test_refused(
    source_run: Path, tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=expected):
        learn_from(source_run, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_model_finds_is_no_correction(source_run: Path, tmp_path: Path) -> None:
    path = save_case(tmp_path, 8)
    path.unlink()
    Predictor.load(source_run).predict(tmp_path / "scans" / "sub-8.nii.gz").save(path)
    with pytest.raises(UserError, match="nothing was corrected"):
        learn_from(source_run, tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="--scans"):
        learn(source_run, tmp_path / "labels", tmp_path / "out")
