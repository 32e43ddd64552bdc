"""Self-training end to end: what reaches the student, and what never does."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system.errors import ConfigError, DataError
from hsf_finetune.system.run_folder import epochs_done
from tests.conftest import CONF, FAST, save_nifti, tiny_case
from tests.training.killing import run_until_killed

Compose = Callable[..., Settings]


def write_cohort(root: Path, subjects: int, hidden: int = 0) -> Path:
    """The tiny cohort; from the third subject on its labels are those of seed `hidden`, if any."""
    for number in range(1, subjects + 1):
        image, label = tiny_case(number)
        if hidden and number > 2:
            label = (
                np.random.default_rng([hidden, number])
                .choice([0, 10, 20], label.shape)
                .astype(np.uint8)
            )
        folder = root / "tiny" / f"sub-{number:02d}"
        save_nifti(folder / f"sub-{number:02d}_T2w.nii.gz", image)
        save_nifti(folder / f"sub-{number:02d}_dseg.nii.gz", label)
    names = {"train": ["sub-01"], "validation": ["sub-02"]}
    (root / "split.json").write_text(json.dumps(names))
    return root


def settings_of(data: Path, run_dir: Path, *more: str) -> Settings:
    """One case trains, one validates; the teacher has two epochs, and a student four."""
    return compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            f"datasets.split_file={data / 'split.json'}",
            "datasets.unlabelled=tiny",
            "datasets.k_sample=4",
            f"run_dir={run_dir}",
            "finetuning=selftrain",
            "finetuning.pretrained=none",
            "finetuning.selftrain.max_epochs=4",
            "models.lr=1e-2",
            "lightning.max_epochs=2",
            *FAST,
            *more,
        ],
        CONF,
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "final" / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("selftrain")
    run_experiment(settings_of(write_cohort(root / "data", 4), root / "run"))
    return root / "run"


def test_every_file_is_accounted_for(finished: Path) -> None:
    with (finished / "ledger.csv").open(newline="") as file:
        status = {Path(row["file"]).name: row["fate"] for row in csv.DictReader(file)}
    assert status["sub-03_T2w.nii.gz"] == status["sub-04_T2w.nii.gz"] == "unlabelled"
    assert status["sub-01_T2w.nii.gz"] == status["sub-02_T2w.nii.gz"] == "image"
    split = json.loads((finished / "final" / "splits.json").read_text())
    assert len(split["train"]) == 3
    assert split["validation"] == ["tiny__sub-02__sub-02_T2w"]


@pytest.mark.parametrize("place", ["more", "tiny/more"])
def test_subjects_of_labelled_scans_are_those_of_the_scans(place: str, tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", 3)
    for number, name in enumerate(("sub-02_ses-2_T2w", "pilot"), start=70):
        save_nifti(data / place / f"{name}.nii.gz", tiny_case(number)[0])
    given = [f"datasets.unlabelled={place}", "datasets.unlabelled_held_out=true"]
    own = ["datasets.datasets.tiny.path=.", "lightning.max_epochs=1"] if place == "more" else []
    patterns = "datasets.datasets.tiny.patterns"
    if own:
        own += [f"{patterns}.t2={{mri: 'tiny/*/*_T2w.nii.gz', label: 'tiny/*/*_dseg.nii.gz'}}"]
    run_experiment(settings_of(data, tmp_path / "run", *given, *own))
    split = json.loads((tmp_path / "run" / "final" / "splits.json").read_text())
    prefix = "" if own else "tiny/"
    assert split["subjects"]["train"] == sorted(
        f"{prefix}{s}" for s in ("pilot", "sub-01", "sub-02")
    )
    assert split["subjects"]["validation"] == [f"{prefix}sub-02"]
    assert split["held_out"]


def test_the_run_is_a_model(finished: Path) -> None:
    scan = finished.parent / "data" / "tiny" / "sub-02" / "sub-02_T2w.nii.gz"
    predictor = Predictor.load(finished)
    assert dict(predictor.card.label_values) == {"background": 0, "anterior": 10, "posterior": 20}
    assert predictor.predict(scan).labels.shape == tiny_case(2)[1].shape


def test_a_label_that_an_unlabelled_scan_has_changes_nothing(
    finished: Path, tmp_path: Path
) -> None:
    data = write_cohort(tmp_path / "data", 4, hidden=7)
    run_experiment(settings_of(data, tmp_path / "run"))
    assert_same_weights(finished, tmp_path / "run")


def test_a_student_that_is_killed_and_resumed_equals_one_that_is_not(
    finished: Path, tmp_path: Path
) -> None:
    data = finished.parent / "data"
    settings = settings_of(data, tmp_path / "run")
    run_until_killed(settings, epoch=3)
    labels = tmp_path / "run" / "labels_1"
    written = {path: path.stat().st_mtime_ns for path in labels.glob("*.nii.gz")}
    assert len(written) == 2
    run_experiment(settings.model_copy(update={"resume": str(tmp_path / "run")}))
    assert {path: path.stat().st_mtime_ns for path in labels.glob("*.nii.gz")} == written
    assert_same_weights(finished, tmp_path / "run")


def test_labels_that_were_changed_are_not_learned_from(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for name in ("result.json", "final/result.json"):
        (run / name).unlink()
    path = next((run / "labels_1").glob("*.nii.gz"))
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    settings = settings_of(finished.parent / "data", run, f"resume={run}")
    with pytest.raises(DataError, match="not what it was"):
        run_experiment(settings)


def test_one_merged_label_without_validation_is_enough(finished: Path, tmp_path: Path) -> None:
    """Two teachers that are given; the one labelled case draws a union of their classes."""
    data = write_cohort(tmp_path / "data", 1)
    settings = settings_of(
        data,
        tmp_path / "run",
        "datasets.split_file=null",
        "datasets.train_on_all=true",
        f"datasets.unlabelled={finished.parent / 'data' / 'tiny' / 'sub-03'}",
        "datasets.datasets.tiny.labels={10: 1, 20: 1}",
        "~datasets.datasets.tiny.labels_names",
        "+datasets.datasets.tiny.labels_names={1: whole}",
        "+datasets.datasets.tiny.label_sets={whole: [anterior, posterior]}",
        "models.labels_names=[anterior, posterior]",
        "models.use_forgiving_loss=true",
        "datasets.allow_unsupervised=[anterior, posterior]",
        f"finetuning.selftrain.teacher=[{finished},{finished / 'teacher'}]",
        "finetuning.selftrain.start=teacher",
        "finetuning.selftrain.views=shift",
    )
    result = run_experiment(settings)
    assert not (tmp_path / "run" / "teacher").exists()
    assert len(result.after) > 0
    table = next((tmp_path / "run" / "labels_1").glob("*.csv")).read_text()
    assert "sub-03_T2w.nii.gz" in table


@pytest.mark.parametrize(
    ("length", "student"),
    [("lightning.max_epochs", "null"), ("finetuning.selftrain.max_epochs", "1")],
)
def test_an_ended_run_is_resumed_for_a_longer_student_alone(
    tmp_path: Path, length: str, student: str
) -> None:
    """Where the student has a length of its own, that is the one to change."""
    data, run = write_cohort(tmp_path / "data", 3), tmp_path / "run"
    given = (f"finetuning.selftrain.max_epochs={student}",)
    run_experiment(settings_of(data, run, *given))
    done = 2 if student == "null" else 1
    resume = (*given, f"resume={run}")
    with pytest.raises(ConfigError, match=f"(?s)has ended.*{length}={2 * done};"):
        run_experiment(settings_of(data, run, *resume))
    with pytest.raises(
        ConfigError, match=f"{length}=1 is no more than the 2 epochs|other settings"
    ):
        run_experiment(settings_of(data, run, *resume, "lightning.max_epochs=1"))
    run_experiment(settings_of(data, run, *resume, f"{length}={done + 1}"))
    assert (run / f"result_until_epoch_{done}.json").exists()
    assert (run / "final" / f"result_until_epoch_{done}.json").exists()
    assert epochs_done(run / "final") == done + 1
    assert epochs_done(run / "teacher") == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["datasets.unlabelled=[]"], "none are given"),
        (["datasets.unlabelled=nowhere"], "does not exist"),
        (["datasets.unlabelled=tiny/sub-01"], "no scan of datasets.unlabelled can be used"),
    ],
)
def test_refuses_before_anything_is_written(
    finished: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=message):
        run_experiment(settings_of(finished.parent / "data", run, *more))
    assert not run.exists()


def test_it_is_refused_before_phantoms_and_their_source_model_are_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(ConfigError, match="none are given"):
        run_experiment(compose("finetune", ["finetuning=selftrain", f"datasets.main_path={data}"]))
    assert not data.exists()
