"""What a run forgets of the source's task, measured by the same question before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.score_tables import read_scores, summarise
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF, FAST

BLOB = (
    "datasets.retention={old: {path: tiny, patterns: {t2: {mri: 'sub-*/*_T2w.nii.gz', "
    "label: 'sub-*/*_dseg.nii.gz'}}, labels: {10: 1, 20: 1}, labels_names: {1: blob}}}"
)


def settings(data: Path, outputs: Path, source: Path, *more: str) -> Settings:
    return compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            f"datasets.output_path={outputs}",
            f"finetuning.pretrained={source}",
            "finetuning.derive_from={anterior: blob, posterior: blob}",
            "finetuning=full",
            "lightning.max_epochs=1",
            *FAST,
            BLOB,
            *more,
        ],
        CONF,
    )


def test_an_untouched_model_forgets_nothing_and_a_ruined_one_does(
    data: Path, outputs: Path, source_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The new head splits the old class exactly, so that a rate of almost 0 keeps its Dice.
    kept = run_experiment(settings(data, outputs / "a", source_run, "models.lr=1e-12"))
    before, after = (
        read_scores(kept.folder / f"retention_{when}.csv") for when in ("before", "after")
    )
    assert {row.score.class_name for row in before} == {"blob"}
    assert len(before) == len(after) == 5
    dice = summarise(before)[-1].dice.mean
    assert dice > 0.5
    assert summarise(after)[-1].dice.mean == pytest.approx(dice, abs=1e-4)
    assert "Dice points of what it knew" in capsys.readouterr().out
    ruined = run_experiment(settings(data, outputs / "b", source_run, "models.lr=10"))
    written = json.loads((ruined.folder / "result.json").read_text())["retention"]
    lost = written["before"][-1]["dice"]["mean"] - written["after"][-1]["dice"]["mean"]
    assert lost > 0.1
    assert written["change"]["mean"]["mean"] == pytest.approx(-lost)
    assert written["without_counterpart"] == []


def test_the_source_is_scored_by_its_own_head(data: Path, outputs: Path, source_run: Path) -> None:
    from hsf_finetune.data.discovery.cases import discover
    from hsf_finetune.evaluation.score_model import score_cases

    run = run_experiment(settings(data, outputs, source_run))
    own = compose("train", ["datasets=tiny_source", f"datasets.main_path={data}", *FAST], CONF)
    cases = discover(own.datasets, own.models).cases
    direct = score_cases(Predictor.load(source_run, "best", "cpu"), cases)
    found = read_scores(run.folder / "retention_before.csv")
    assert {r.case.split("__", 1)[1]: r.score.dice for r in found} == pytest.approx(
        {r.case.split("__", 1)[1]: r.score.dice for r in direct}, abs=1e-6
    )


def test_it_needs_a_source_model(data: Path, outputs: Path) -> None:
    with pytest.raises(ConfigError, match="has no source model"):
        run_experiment(settings(data, outputs, Path("none"), "finetuning.pretrained=none"))
    assert not outputs.exists()


def test_with_folds_it_is_the_final_model_that_is_asked(
    data: Path, outputs: Path, source_run: Path
) -> None:
    run = run_experiment(
        settings(data, outputs, source_run, "datasets.fold=all", "datasets.folds=2")
    )
    assert not (run.folder / "fold_0" / "retention.json").exists()
    pooled, final = (
        json.loads((run.folder / name / "result.json").read_text())["retention"]
        for name in ("", "final")
    )
    assert pooled == final
