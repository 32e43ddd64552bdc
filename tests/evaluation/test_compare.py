"""A model is scored case by case on the files' own grids, against what each protocol annotates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.configuration import compose
from hsf_finetune.data.cases import Case, discover
from hsf_finetune.evaluation.compare import annotated_classes, score_cases, truth_classes
from hsf_finetune.evaluation.files import score_files
from hsf_finetune.inference.batch import plan_jobs, run_jobs
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.labels import LabelMap
from tests.conftest import CONF, save_nifti, tiny_case


def cases_of(dataset: str, data: Path) -> tuple[Case, ...]:
    overrides = [f"datasets={dataset}", f"datasets.main_path={data}"]
    return discover(compose("finetune", overrides, CONF).datasets).cases


def test_truth_is_in_the_models_classes(data: Path) -> None:
    for dataset, classes in (("tiny", {0: 0, 10: 1, 20: 2}), ("tiny_source", {0: 0, 10: 1, 20: 1})):
        for number, case in enumerate(cases_of(dataset, data), start=1):
            raw = tiny_case(number)[1]
            np.testing.assert_array_equal(truth_classes(case), np.vectorize(classes.get)(raw))


def test_a_class_that_the_protocol_does_not_know_is_not_scored(data: Path) -> None:
    case = cases_of("tiny", data)[0]
    assert annotated_classes(case) == ["anterior", "posterior"]
    partial = LabelMap.of(case.protocol.space, {10: ["posterior"], 20: ["background"]})
    assert annotated_classes(replace(case, protocol=partial)) == ["posterior"]


@pytest.mark.parametrize("count", [0, 2])
def test_every_case_and_class_has_a_row(count: int, data: Path, source_run: Path) -> None:
    seen: list[tuple[int, int]] = []
    cases = cases_of("tiny_source", data)[:count]
    model = Predictor.load(source_run, device="cpu")
    rows = score_cases(model, cases, progress=lambda done, total: seen.append((done, total)))
    assert [(r.case, r.subject, r.score.class_name) for r in rows] == [
        (c.name, c.subject, "blob") for c in cases
    ]
    assert seen == [(n, len(cases)) for n in range(1, len(cases) + 1)]


def test_scores_equal_those_of_the_written_files(
    data: Path, source_run: Path, tmp_path: Path
) -> None:
    model = Predictor.load(source_run, device="cpu")
    case = cases_of("tiny_source", data)[3]
    (direct,) = score_cases(model, [case], tolerance_mm=1.5)
    (job,) = plan_jobs([str(case.images[0].path)], tmp_path, None)
    run_jobs(model, [job], False, lambda done, total: None)
    raw = tiny_case(4)[1]
    merged = save_nifti(
        tmp_path / "label" / job.output.name, np.where(raw > 0, 10, 0).astype(np.uint8)
    )
    (written,) = score_files(job.output, merged, {"blob": 10}, 1.5)
    assert 0 < direct.score.dice <= 1
    assert written.score == direct.score
