"""Few cases: folds by default, a fixed budget, pooled scores and a final model, end to end."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.phantom.write_phantoms import PhantomCohort, write_phantoms
from hsf_finetune.evaluation.evaluate import evaluate_run
from hsf_finetune.evaluation.finished_runs import read_run
from hsf_finetune.evaluation.score_tables import read_scores
from hsf_finetune.experiment.resume import find_run
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.experiment.run_result import RunResult
from hsf_finetune.experiment.validation_lessons import share_lessons
from hsf_finetune.inference.ensemble import Ensemble, load_models
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.phantom_source import phantom_source_folder
from hsf_finetune.planning.plan_run import preview_run
from hsf_finetune.system.errors import ConfigError, DataError, UserError, WeightsError
from tests.conftest import CONF, FAST, save_nifti, tiny_case

Compose = Callable[..., Settings]


def write(root: Path, subjects: int) -> Path:
    """The tiny cohort with as many subjects."""
    for number in range(1, subjects + 1):
        image, label = tiny_case(number)
        folder = root / "tiny" / f"sub-{number:02d}"
        save_nifti(folder / f"sub-{number:02d}_T2w.nii.gz", image)
        save_nifti(folder / f"sub-{number:02d}_dseg.nii.gz", label)
    return root


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("few")


@pytest.fixture(scope="module")
def composed(module_path: Path, source_run: Path) -> Compose:
    def build(subjects: int, *more: str) -> Settings:
        data = write(module_path / f"data{subjects}", subjects)
        return compose(
            "finetune",
            [
                "datasets=tiny",
                f"datasets.main_path={data}",
                f"datasets.output_path={module_path / 'outputs'}",
                f"finetuning.pretrained={source_run}",
                "finetuning.derive_from={anterior: blob, posterior: blob}",
                "finetuning=full",
                "lightning.max_epochs=2",
                "models.lr=1e-2",
                *FAST,
                "datasets.few_subjects=8",
                *more,
            ],
            CONF,
        )

    return build


@pytest.fixture(scope="module")
def three(composed: Compose) -> RunResult:
    return run_experiment(composed(3))


def subjects_of(split: Path, side: str) -> set[str]:
    return set(json.loads(split.read_text())["subjects"][side])


def check_said(said: str) -> None:
    """Two subjects: that they are few, what is done about it, and what it cannot show."""
    for part in (
        "2 subjects are few",
        "3 runs one after the other",
        "each by the fold that did not train",
        "95 % t interval over 2 subjects",
        "cannot tell a small change from chance",
        "fixed budget: the last epoch is kept",
    ):
        assert part in " ".join(said.split())


@pytest.mark.parametrize("subjects", [2, 3])
def test_few_subjects_are_folded_without_being_asked(
    subjects: int,
    composed: Compose,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = request.getfixturevalue("three") if subjects == 3 else run_experiment(composed(2))
    if subjects == 2:
        check_said(capsys.readouterr().out)
    folds = sorted(result.folder.glob("fold_*"))
    assert [fold.name for fold in folds] == [f"fold_{k}" for k in range(subjects)]
    validated = []
    for fold in folds:
        train, held = (subjects_of(fold / "splits.json", s) for s in ("train", "validation"))
        assert len(held) == 1
        assert len(train) == subjects - 1
        assert not train & held
        validated += sorted(held)
    assert len(set(validated)) == len(validated) == subjects
    assert len(subjects_of(result.folder / "final" / "splits.json", "train")) == subjects
    # Each case once, by the fold that held it out, and nobody's interval is narrower than known.
    pooled = read_scores(result.folder / "validation_scores.csv")
    assert tuple(pooled) == result.after
    by_fold = [row for f in folds for row in read_scores(f / "validation_scores.csv")]
    assert sorted(by_fold, key=str) == sorted(pooled, key=str)
    assert len({row.case for row in pooled}) == subjects
    assert {row.case for row in result.before} == {row.case for row in pooled}
    written = json.loads((result.folder / "result.json").read_text())
    assert written["budget"] == "fixed"
    assert len(written["folds"]) == subjects
    dice = written["best_epoch"][-1]["dice"]
    cases = [
        np.mean([r.score.dice for r in pooled if r.case == c]) for c in {r.case for r in pooled}
    ]
    low = np.mean(cases) - 2.7 * np.std(cases, ddof=1) / math.sqrt(subjects)
    assert dice["subjects"] == subjects
    assert dice["low"] <= max(low, 0.0) + 1e-9


def test_nine_subjects_are_split_once(composed: Compose) -> None:
    result = run_experiment(composed(9))
    assert not list(result.folder.glob("fold_*"))
    assert subjects_of(result.folder / "splits.json", "validation")
    assert json.loads((result.folder / "result.json").read_text())["budget"] == "validation"
    best, last = (result.folder / "checkpoints" / f"{n}.ckpt" for n in ("best", "last"))
    assert best.exists()
    assert last.exists()


def test_nine_subjects_are_folded_when_asked(composed: Compose) -> None:
    result = run_experiment(composed(9, "datasets.fold=all", "datasets.folds=2"))
    sizes = [
        len(subjects_of(f / "splits.json", "validation")) for f in result.folder.glob("fold_*")
    ]
    assert sorted(sizes) == [4, 5]
    assert len({row.case for row in result.after}) == 9


def test_the_final_model_predicts_for_the_whole_run(three: RunResult, tmp_path: Path) -> None:
    scan = next(three.folder.parents[1].glob("data3/tiny/sub-01/*_T2w.nii.gz"))
    whole, final = (
        Predictor.load(folder, device="cpu").predict(scan).labels
        for folder in (three.folder, three.folder / "final")
    )
    assert (whole == final).all()


def test_the_last_weights_are_the_ones_that_are_used(three: RunResult) -> None:
    for folder in (three.folder / "fold_0", three.folder / "final"):
        best, last = (
            torch.load(folder / "checkpoints" / f"{n}.ckpt", weights_only=True)
            for n in ("best", "last")
        )
        assert best["epoch"] == last["epoch"] == 1
        for name, tensor in last["state_dict"].items():
            assert torch.equal(tensor, best["state_dict"][name])


def test_evaluating_the_run_gives_its_pooled_scores(three: RunResult, tmp_path: Path) -> None:
    evaluate_run(three.folder, device="cpu").save(tmp_path / "scores.csv")
    there = {(r.case, r.score.class_name): r.score.dice for r in three.after}
    again = {
        (r.case, r.score.class_name): r.score.dice for r in read_scores(tmp_path / "scores.csv")
    }
    assert again == pytest.approx(there)
    with pytest.raises(ConfigError, match="has no train cases"):
        evaluate_run(three.folder, "train")


def test_the_folds_segment_together_and_teach_the_final_model(three: RunResult) -> None:
    model = load_models([three.folder], "folds", device="cpu")
    assert isinstance(model, Ensemble)
    assert model.passes == 3
    card = Predictor.load(three.folder, device="cpu").card
    assert share_lessons([member.card for member in model.members], card) == card
    result = json.loads((three.folder / "result.json").read_text())
    assert result["postprocessing"] == card.postprocessing.to_list()
    assert result["calibration"] == (card.calibration.to_dict() if card.calibration else None)


def test_it_can_be_compared_as_one_run(three: RunResult) -> None:
    run = read_run(three.folder, "three")
    assert len(run.split["validation"]) == 3
    # Three folds and the final model, two epochs each.
    assert run.cost.epochs == 8


def test_folds_that_ended_are_not_made_again(composed: Compose, tmp_path: Path) -> None:
    here = composed(2, f"run_dir={tmp_path / 'run'}")
    stopped = here.model_copy(
        update={"datasets": here.datasets.model_copy(update={"output_path": str(tmp_path)})}
    )
    first = run_experiment(stopped)
    kept = (first.folder / "fold_0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    before = (first.folder / "validation_scores.csv").read_text()
    # As if it had been stopped within the second fold.
    for name in ("result.json", "fold_1/result.json", "validation_scores.csv"):
        (first.folder / name).unlink()
    again = run_experiment(stopped.model_copy(update={"run_dir": None, "resume": "auto"}))
    assert again.folder == first.folder
    assert (again.folder / "fold_0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == kept
    assert (again.folder / "validation_scores.csv").read_text() == before
    with pytest.raises(ConfigError, match="has ended"):
        run_experiment(stopped.model_copy(update={"resume": str(first.folder)}))
    with pytest.raises(ConfigError, match=r"(?s)has ended.*more epochs: lightning\.max_epochs=4;"):
        find_run(stopped.model_copy(update={"resume": str(first.folder)}))
    fewer = stopped.lightning.model_copy(update={"max_epochs": 1})
    shorter = stopped.model_copy(update={"resume": str(first.folder), "lightning": fewer})
    with pytest.raises(ConfigError, match="max_epochs=1 is no more than the 2 epochs"):
        find_run(shorter)
    longer = stopped.lightning.model_copy(update={"max_epochs": 3})
    third = run_experiment(
        stopped.model_copy(update={"resume": str(first.folder), "lightning": longer})
    )
    for name in ("fold_0", "fold_1", "final"):
        with (third.folder / name / "metrics.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 3
        assert (third.folder / name / "result_until_epoch_2.json").exists()
    assert (third.folder / "result_until_epoch_2.json").exists()


@pytest.mark.parametrize(
    "split", ["datasets.fold=0", "datasets.fold=null", "datasets.train_on_all=true"]
)
def test_a_single_split_cannot_be_pruned(composed: Compose, split: str) -> None:
    settings = composed(2, split, "datasets.prune_below=0.5")
    with pytest.raises(ConfigError, match=r"(?s)this run makes one split.*datasets\.fold=all"):
        preview_run(settings)


def test_what_cannot_be_pruned_is_refused_before_the_phantom_source_is_trained(
    tmp_path: Path,
) -> None:
    write_phantoms(tmp_path / "data", PhantomCohort(0, 1, 3, (16, 24, 16), 2.0))
    given = [
        "datasets=phantom",
        f"datasets.main_path={tmp_path / 'data'}",
        "datasets.generate=null",
    ]
    given += ["finetuning.pretrained=demo", "models.channels=[4,6]", "datasets.prune_below=0.5"]
    settings = compose("finetune", [*FAST, *given], CONF)
    with pytest.raises(ConfigError, match="this run makes one split"):
        run_experiment(settings)
    assert not phantom_source_folder(settings).exists()


def test_a_run_whose_first_fold_is_bad_ends_after_it(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned = composed(2, f"run_dir={tmp_path / 'run'}", "datasets.prune_below=1")
    result = run_experiment(pruned)
    assert "1 further fold and the final model are not trained" in " ".join(
        capsys.readouterr().out.split()
    )
    assert [path.name for path in sorted(result.folder.glob("f*"))] == ["fold_0"]
    assert (result.pruned, result.first_fold) == (True, result.dice)
    written = json.loads((result.folder / "result.json").read_text())
    assert written["pruned"] == {"first_fold": result.dice, "prune_below": 1.0}
    assert float(result) == pytest.approx(written["best_epoch"][-1]["dice"]["mean"])
    with pytest.raises(ConfigError, match=r"(?s)pruned.*datasets\.prune_below=null"):
        read_run(result.folder, "pruned")
    assert len({row.case for row in evaluate_run(result.folder, device="cpu").rows}) == 1
    assert isinstance(load_models([result.folder], "folds", device="cpu"), Predictor)
    with pytest.raises(WeightsError, match=r"(?s)pruned.*datasets\.prune_below=null"):
        load_models([result.folder], device="cpu")
    again = pruned.model_copy(update={"run_dir": None, "resume": str(result.folder)})
    with pytest.raises(ConfigError, match="has ended"):
        find_run(again)
    whole = again.datasets.model_copy(update={"prune_below": None})
    found = find_run(again.model_copy(update={"datasets": whole}))
    assert found is not None
    assert found.path == result.folder


def test_a_run_that_lacks_a_fold_is_not_used_as_if_it_were_whole(
    composed: Compose, three: RunResult, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(three.folder, run)
    uses: list[Callable[[], object]] = [
        lambda: evaluate_run(run, device="cpu"),
        lambda: load_models([run], "folds", device="cpu"),
        lambda: read_run(run, "run"),
    ]
    shutil.copytree(run / "fold_0", run / "fold_0_copy")
    for use in uses:
        with pytest.raises(DataError, match=r"(?s)not its own.*fold_0_copy"):
            use()
    shutil.rmtree(run / "fold_0_copy")
    (run / "fold_1" / "result.json").unlink()
    shutil.rmtree(run / "fold_2")
    shutil.rmtree(run / "final")
    with pytest.raises(WeightsError, match=f"(?s)has not ended.*fold_0 of.*resume={run} fin"):
        load_models([run], device="cpu")
    for use in uses:
        with pytest.raises(DataError, match=f"(?s)fold_1, fold_2 are missing.*resume={run} fin"):
            use()
    moved = read_settings_of(run).model_copy(update={"resume": str(run), "run_dir": None})
    found = find_run(moved)
    assert found is not None
    assert found.path == run


def test_folds_of_a_user_are_used_as_they_are(three: RunResult, tmp_path: Path) -> None:
    for number in (0, 2):
        shutil.copytree(three.folder / f"fold_{number}", tmp_path / f"fold_{number}")
    assert isinstance(load_models([tmp_path], "folds", device="cpu"), Ensemble)
    (tmp_path / "fold_2" / "result.json").unlink()
    with pytest.raises(DataError, match=r"fold_2 is missing or unfinished"):
        load_models([tmp_path], "folds", device="cpu")


def test_nothing_is_left_of_a_run_that_cannot_start(composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run_experiment(composed(2, f"run_dir={tmp_path / 'run'}", "models.channels=[8,16]"))
    assert not (tmp_path / "run").exists()


def test_a_single_split_of_few_is_made_when_asked(composed: Compose) -> None:
    result = run_experiment(composed(5, "datasets.fold=null"))
    assert not list(result.folder.glob("fold_*"))
    assert json.loads((result.folder / "result.json").read_text())["budget"] == "fixed"


@pytest.mark.parametrize(
    "contradiction", ["datasets.train_on_all=true", "datasets.train_val_test_idx=[[0],[1]]"]
)
def test_folds_beside_a_given_split_are_refused(composed: Compose, contradiction: str) -> None:
    with pytest.raises(ConfigError, match="contradicts"):
        run_experiment(composed(2, "datasets.fold=all", contradiction))


def test_several_devices_are_refused(composed: Compose) -> None:
    with pytest.raises(ConfigError, match="one device"):
        run_experiment(composed(2, "lightning.devices=2"))


def test_a_fixed_budget_waits_for_no_plateau(composed: Compose) -> None:
    waits = preview_run(composed(9, "finetuning=gradual", "lightning.max_epochs=6")).schedule
    assert waits.stages[0].patience_epochs == 3
    fixed = preview_run(composed(5, "finetuning=gradual", "lightning.max_epochs=6")).schedule
    assert [s.patience_epochs for s in fixed.stages] == [None] * 3
    assert not any(s.carries_best for s in fixed.stages)
    assert fixed.max_epochs == 6
    assert "finetuning.budget=validation" in fixed.remarks[-1]
