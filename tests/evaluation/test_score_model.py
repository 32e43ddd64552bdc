"""A model is scored case by case on the files' own grids, in each case's own protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import Case, discover
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.evaluation.evaluate import evaluate_files
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.labels.classes import LabelMap
from tests.conftest import CONF, save_nifti, tiny_case


def cases_of(dataset: str, data: Path) -> tuple[Case, ...]:
    overrides = [f"datasets={dataset}", f"datasets.main_path={data}"]
    return discover(compose("finetune", overrides, CONF).datasets).cases


class Certain:
    """A predictor that is sure of each voxel's class, or undecided between two of them."""

    def __init__(self, probabilities: torch.Tensor) -> None:
        self._probabilities = probabilities

    def predict_probabilities(self, channels: Sequence[VolumeRef]) -> tuple[torch.Tensor, Volume]:
        return self._probabilities, read_volume(channels[0])


def test_a_case_is_scored_in_its_own_protocol(data: Path) -> None:
    case = cases_of("tiny", data)[0]
    raw = torch.from_numpy(tiny_case(1)[1].astype(int))
    sure = torch.stack([raw == value for value in (0, 10, 20)]).float()
    # Undecided inside, but sure of being inside: 0.3 + 0.3 against 0.4 for the background.
    unsure = torch.stack([0.4 * (raw > 0) + (raw == 0), 0.3 * (raw > 0), 0.3 * (raw > 0)])
    both = frozenset({"anterior", "posterior"})
    space = case.protocol.space
    merged = LabelMap.from_sets(space, {10: both, 20: both}, {both: "hippocampus"})
    partial = LabelMap.from_sets(
        space, {0: ["background", "anterior"], 10: space.names, 20: ["posterior"]}
    )

    def dice(protocol: LabelMap, probabilities: torch.Tensor) -> dict[str, float]:
        (one,) = {case.name}
        rows = score_cases(Certain(probabilities), [replace(case, protocol=protocol)])  # type: ignore[arg-type]
        assert all((row.case, row.dataset) == (one, "tiny") for row in rows)
        return {row.score.class_name: row.score.dice for row in rows}

    assert dice(case.protocol, sure) == {"anterior": 1, "posterior": 1}
    assert dice(case.protocol, unsure) == {"anterior": 0, "posterior": 0}
    assert dice(merged, unsure) == {"hippocampus": 1}
    assert dice(partial, sure) == {"posterior": 1}


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
    (result,) = segment_files(model, [case.images[0].path], tmp_path / "found")
    raw = tiny_case(4)[1]
    merged = save_nifti(
        tmp_path / "label" / result.job.output.name, np.where(raw > 0, 10, 0).astype(np.uint8)
    )
    (written,) = evaluate_files(result.job.output, merged, {10: "blob"}, 1.5).rows
    assert 0 < direct.score.dice <= 1
    assert written.score == direct.score
