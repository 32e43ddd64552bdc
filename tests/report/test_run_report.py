"""The report of a run: its figures are those of the run's tables."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.volumes.read_volume import stem
from hsf_finetune.evaluation.reliability import read_reliability
from hsf_finetune.evaluation.score_tables import (
    format_interval,
    format_number,
    paired_differences,
    read_scores,
    summarise,
    write_scores,
)
from hsf_finetune.evaluation.volume_agreement import agree_in_volume
from hsf_finetune.inference.calibration import IN_SAMPLE, Calibration
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.rewrite_card import rewrite_card
from hsf_finetune.report.page import Grid, Lines
from hsf_finetune.report.run_facts import list_findings
from hsf_finetune.report.run_report import forgotten_parts
from hsf_finetune.report.save_report import save_report
from hsf_finetune.report.score_sections import rank_cases
from hsf_finetune.system.console import format_size
from hsf_finetune.system.errors import DataError
from hsf_finetune.training.metrics_file import read_metrics
from tests.conftest import save_nifti, tiny_case
from tests.report.conftest import finetune, reported, text_of


def test_every_figure_is_that_of_the_tables(run: Path) -> None:
    text = text_of(run / "report.html")
    before, after = (
        read_scores(run / f"{name}_scores.csv") for name in ("pretrained", "validation")
    )
    changes = paired_differences(before, after)
    for one in summarise(after):
        change = format_interval(changes[one.class_name], sign="+")
        assert f"{format_interval(one.dice)} {change}" in text
    for agreement in agree_in_volume(after):
        assert str(format_interval(agreement.bias_percent, sign="+", digits=1)) in text
        assert str(format_interval(agreement.icc)) in text
    for one in summarise(after):
        distance, error = (format_number(one.hd95_mm, ".2f"), one.volume_error_percent)
        assert f"{distance} {format_number(one.nsd, '.3f')} {format_number(error, '+.1f')}" in text
    for case, dice in rank_cases(after):
        assert f"{case} {dice:.3f}" in text
    mean, old = (summarise(rows)[-1].dice.mean for rows in (after, before))
    assert f"went from {old:.3f} to {mean:.3f}" in text


def test_figures_of_the_calibration_are_those_of_its_table(run: Path) -> None:
    html, found = (
        (run / "report.html").read_text("utf-8"),
        read_reliability(run / "calibration.csv"),
    )
    assert len(found) == 2
    for when, one in found.items():
        assert f"{when}: error {one.ece:.4f}" in html
    calibration = Predictor.load(run, device="cpu").card.calibration
    assert (calibration is None) == (found["before"].ece == found["after"].ece)
    not_kept = "Probabilities are not calibrated: no temperature"
    assert (not_kept in text_of(run / "report.html")) == (calibration is None)
    if calibration:
        errors = (found["before"].ece, found["after"].ece)
        text = text_of(run / "report.html")
        assert "error {:.3f} before and {:.3f} after".format(*errors) in text


@pytest.mark.parametrize("held_out", [True, False])
def test_figures_of_a_calibration_say_whether_subjects_were_held_out(
    run: Path, tmp_path: Path, held_out: bool
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    fitted = Calibration((2.0,), 1 + held_out, True, (-0.2, -0.1), (0.04, 0.02), held_out)
    best = folder / "checkpoints" / "best.ckpt"
    rewrite_card(best, replace(Predictor.load(best, device="cpu").card, calibration=fitted))
    result = json.loads((folder / "result.json").read_text())
    result["calibration"] = fitted.to_dict()
    (folder / "result.json").write_text(json.dumps(result))
    text = text_of(reported(folder))
    assert text.count("each subject calibrated by the others") == held_out
    # In the sentence, and below the drawing.
    assert text.count(IN_SAMPLE) == (0 if held_out else 2)


def test_what_was_forgotten_is_that_of_the_tables(run: Path, tmp_path: Path) -> None:
    before, after = (read_scores(run / f"{n}_scores.csv") for n in ("pretrained", "validation"))
    write_scores(tmp_path / "retention_before.csv", before)
    write_scores(tmp_path / "retention_after.csv", after)
    lost = {"retention": {"without_counterpart": ["tail"]}}
    _, grid, last = forgotten_parts(tmp_path, lost)
    assert isinstance(grid, Grid)
    changes = paired_differences(before, after)
    for row in grid.rows:
        assert row[3] == str(format_interval(changes[row[0]], sign="+"))
    assert isinstance(last, Lines)
    assert "tail" in last.lines[0]


def test_segmented_scans_have_a_report(run: Path, data: Path, tmp_path: Path) -> None:
    scans, page = [*(data / "tiny").rglob("*_T2w.nii.gz")][:2], tmp_path / "predictions.html"
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), flat)
    command = ["predict", str(run), *map(str, [*scans, flat]), "-o", str(tmp_path / "out")]
    for code in (1, 2):  # the second time the page exists
        with pytest.raises(SystemExit) as stop:
            main([*command, "--report", str(page), "--engine", "torch", "--device", "cpu"])
        assert stop.value.code == code
    text, html = text_of(page), page.read_text("utf-8")
    assert "2 scans segmented into anterior, posterior; 1 failed; 0 skipped." in text
    assert text.index("flat - - failed") < text.index(stem(scans[0]))
    model = Predictor.load(run, device="cpu")
    for scan in scans:
        volumes = [format_size(mm3) for mm3 in model.predict(scan).volumes_mm3.values()]
        assert " ".join(volumes) in text
        assert html.count(f">{stem(scan)}</h3>") == 1


def test_data_weights_and_training_are_those_of_the_files(run: Path) -> None:
    text = text_of(run / "report.html")
    split = json.loads((run / "splits.json").read_text())
    for side in ("train", "validation"):
        assert all(f"{case} {side}" in text for case in split[side])
    for row in (run / "census.csv").read_text().splitlines():
        assert row.replace(",", " ") in text
    loaded = json.loads((run / "transfer.json").read_text())["share_parameters"]
    assert f"loaded {100 * loaded:.1f} % of the parameters" in text
    metrics = read_metrics(run / "metrics.csv")
    assert f"Training took {len(metrics)} epochs ({metrics[-1]['step']} steps" in text


def test_commands_and_what_auto_stood_for_are_said(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    machine = json.loads((copy / "environment.json").read_text())
    later = {**machine, "started": "2030-01-02T", "command": ["a.py", "resume=b"], "python": "9.9"}
    written = {**machine, "command": ["first.py"], "resumed": [later]}
    (copy / "environment.json").write_text(json.dumps(written))
    kept = {"patch_vox": [8, 16, 8], "batch_size": 3, "precision": "bf16-mixed"}
    (copy / "forecast.json").write_text(json.dumps(kept))
    text = text_of(reported(copy))
    assert "of batch size 3) in bfloat16 mixed precision at a peak learning rate" in text
    assert "batch size 3 patch vox 8 x 16 x 8 precision bf16-mixed" in text
    assert "python first.py Resumed on 2030-01-02 by: python a.py resume=b" in text
    assert f"python {machine['python']}, then 9.9" in text
    assert machine["processor"]
    assert f"processor {machine['processor']}" in text


def test_whole_report_is_there(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", html)
    assert titles == [
        "Before and after: validation cases",
        "Each class",
        "Worst cases",
        "Learning",
        "Volumes",
        "Calibration and post-processing",
        "Data and split",
        "Weights and model",
        "Methods",
        "Settings and versions",
    ]
    cases = json.loads((run / "splits.json").read_text())["validation"]
    assert all(html.count(f">{case}</h3>") == 1 for case in cases)
    assert len(html) < 4_000_000


def test_worst_cases_come_first(run: Path) -> None:
    text = text_of(run / "report.html")
    listed = re.findall(r"(tiny__\S+) (\d\.\d{3}) ", text.split("Worst cases")[-1])
    dice = [float(value) for _, value in listed[:2]]
    assert len(dice) == 2
    assert dice == sorted(dice)


def test_data_that_are_gone_are_said(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = copy / "config.yaml"
    config.write_text(re.sub(r"main_path: .*", "main_path: /nowhere", config.read_text()))
    with pytest.raises(SystemExit) as stop:
        main(["report", str(copy)])
    assert stop.value.code == 0
    assert "The cases cannot be shown" in text_of(copy / "report.html")


def test_run_that_has_not_ended_has_no_report(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("result.json"))
    with pytest.raises(SystemExit) as stop:
        main(["report", str(copy)])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("validation_scores.csv", None),
        ("validation_scores.csv", "header"),
        ("validation_scores.csv", "one case"),
        ("splits.json", None),
        ("splits.json", "{}"),
        ("splits.json", '{"how": "'),
        ("check.json", "{}"),
        ("check.json", '{"findings": [{}]}'),
        ("result.json", "{}"),
        ("transfer.json", None),
        ("transfer.json", "{}"),
        ("environment.json", "[]"),
        ("schedule.json", "{}"),
    ],
)
def test_damaged_file_of_a_run_is_named(
    run: Path, tmp_path: Path, file: str, text: str | None
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    lines = (run / file).read_text().splitlines(keepends=True)
    (copy / file).unlink()
    if text is not None:
        kept = {"header": lines[0], "one case": "".join(lines[:3])}
        (copy / file).write_text(kept.get(text, text))
    with pytest.raises(DataError) as caught:
        save_report(copy)
    assert caught.value.file == copy / file
    assert caught.value.found
    assert caught.value.expected
    assert caught.value.fix


def test_damaged_comparison_is_named(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(DataError, match="no 'side'"):
        save_report(tmp_path)


def test_folds_have_one_report(data: Path, source_run: Path, tmp_path: Path) -> None:
    folder = finetune(
        data,
        tmp_path,
        source_run,
        "datasets.fold=all",
        "datasets.folds=2",
        "lightning.max_epochs=1",
    )
    assert [*folder.rglob("report.html")] == [folder / "report.html"]
    text = text_of(folder / "report.html")
    assert "on 5 validation cases of 5 subjects" in text
    assert "Each case is scored by the fold that did not train on it" in text
    assert (
        "5 scans of 5 subjects for training, 5 scans of 5 subjects for validation, 3 of which also "
        "trained the pretrained model (2 folds" in text
    )
    whole = read_settings_of(folder)
    assert whole.datasets.fold == "all"
    assert (folder / "config.yaml").read_text().strip() in unescape(
        (folder / "report.html").read_text("utf-8")
    )
    assert f"run_dir: {folder / 'fold_0'}" not in text
    assert "the final model learns from" in text
    assert "train tiny anterior 5 5" in text
    assert "validation tiny" not in text
    scores = [
        row for fold in (0, 1) for row in read_scores(folder / f"fold_{fold}/validation_scores.csv")
    ]
    by_case: dict[str, list[float]] = {}
    for row in scores:
        by_case.setdefault(row.case, []).append(row.score.dice)
    mean = np.mean([np.nanmean(dice) for dice in by_case.values()])
    assert re.search(rf"pretrained model, went from \S+ to {mean:.3f} ", text)


def test_findings_of_folds_name_the_fold(tmp_path: Path) -> None:
    common = {"tier": "warned", "case": "a", "what": "far away"}
    for name, more in (("fold_0", []), ("fold_1", [{**common, "what": "a copy"}])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "check.json").write_text(json.dumps({"findings": [common, *more]}))
    (grid,) = list_findings([tmp_path / "fold_0", tmp_path / "fold_1"])
    assert isinstance(grid, Grid)
    assert [[*row] for row in grid.rows] == [
        ["warned", "a", "far away", "all"],
        ["warned", "a", "a copy", "fold_1"],
    ]


def test_unlabelled_scans_of_folds_are_in_the_methods(
    data: Path, source_run: Path, tmp_path: Path
) -> None:
    for number in (8, 9):
        save_nifti(tmp_path / "scans" / f"new-{number}.nii.gz", tiny_case(number)[0])
    folder = finetune(
        data,
        tmp_path / "outputs",
        source_run,
        "datasets.fold=all",
        "datasets.folds=2",
        "finetuning=selftrain",
        f"datasets.unlabelled={tmp_path / 'scans'}",
    )
    text = text_of(folder / "report.html")
    assert "selftrain: null" not in text
    assert text.count("pseudo_labels anterior 2") == 1
    assert "2 scans without manual labels were labelled, in each run, by a model" in text
    assert "Training took, in each of 3 runs (2 folds and a final model on all scans), " in text
    epochs = r"2 epochs \([\d to]+ steps of batch size 2\)"
    assert re.search(
        f"scans\\), {epochs} for the teacher and {epochs} for the student in float32 precision at ",
        text,
    )


def test_segmentations_against_labels_have_a_report(data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for label in (data / "tiny").rglob("*_dseg.nii.gz"):
        shutil.copy(label, labels)
    page, names = tmp_path / "scores.html", "10=anterior,20=posterior"
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(labels), str(labels), "--labels", names, "--report", str(page)])
    assert stop.value.code == 0
    assert "Mean Dice on 5 cases of 5 subjects: 1.000 [1.000, 1.000]." in text_of(page)
