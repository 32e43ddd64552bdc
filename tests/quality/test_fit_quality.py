"""Foretelling Dice: simulated cohorts with a known relation, and a model's own cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.quality_model import FEWEST_SUBJECTS, QualityModel, to_dice, to_loss
from hsf_finetune.quality.fit_quality import (
    QualityCase,
    fit_quality,
    measure_quality,
    read_quality_cases,
    write_quality_cases,
)
from tests.conftest import CONF, FAST

CLASSES = {"DG": -0.5, "CA1": 0.3}
"""Class -> constant of the simulated relation."""


def simulate(subjects: int, random: np.random.Generator, noise: float = 0.3) -> list[QualityCase]:
    """Cohorts in which each subject has an error of its own, and each copy."""
    cases = []
    for subject in range(subjects):
        own = random.normal(0, noise / 2)
        for copy in range(9):
            base = random.normal(-1.5 + 0.3 * (copy > 0), 0.7)
            for name, constant in CLASSES.items():
                loss = constant + 1.4 * base + own + random.normal(0, noise)
                place = (f"case{subject}", f"sub{subject}", f"noise {copy}" if copy else "")
                cases.append(QualityCase(*place, name, to_dice(loss), to_dice(base)))
    return cases


def test_the_relation_is_found() -> None:
    quality = fit_quality(simulate(40, np.random.default_rng(0), noise=0.05))
    assert quality is not None
    assert quality.slope == pytest.approx(1.4, abs=0.1)
    difference = quality.constants["CA1"] - quality.constants["DG"]
    assert difference == pytest.approx(0.8, abs=0.1)
    assert (quality.subjects, quality.volumes) == (40, 360)
    foretold = quality.foretell(("DG", "CA1", "never seen"), (0.8, 0.8, 0.8))
    expected = [to_dice(constant + 1.4 * to_loss(0.8)) for constant in CLASSES.values()]
    assert [one.class_name for one in foretold] == ["DG", "CA1", "mean"]
    assert [one.dice for one in foretold[:2]] == pytest.approx(expected, abs=0.03)
    assert foretold[2].dice == pytest.approx(np.mean(expected), abs=0.03)
    assert all(one.low < one.dice for one in foretold)
    assert QualityModel.from_dict(quality.to_dict()) == quality


@pytest.mark.parametrize("subjects", [4, 5, 10, 40])
def test_the_bound_covers(subjects: int) -> None:
    random, reached, mean_reached = np.random.default_rng(subjects), [], []
    for _ in range(30):
        quality = fit_quality(simulate(subjects, random))
        assert quality is not None
        unseen = simulate(10, random)
        for a, b in zip(unseen[::2], unseen[1::2], strict=True):
            foretold = quality.foretell(("DG", "CA1"), (a.sureness, b.sureness))
            reached += [a.dice >= foretold[0].low, b.dice >= foretold[1].low]
            mean_reached.append((a.dice + b.dice) / 2 >= foretold[2].low)
    # Wider than needed for few subjects, whose scans may be unlike those to come.
    most = 0.96 if subjects > 5 else 0.98
    assert 0.87 < np.mean(reached) < most
    assert 0.87 < np.mean(mean_reached) < most


def test_too_few_subjects_foretell_nothing() -> None:
    assert fit_quality(simulate(FEWEST_SUBJECTS - 1, np.random.default_rng(0))) is None
    assert fit_quality([]) is None


def test_a_model_is_measured_on_its_cases(data: Path, source_run: Path, tmp_path: Path) -> None:
    settings = compose("train", ["datasets=tiny_source", f"datasets.main_path={data}", *FAST], CONF)
    cases = discover(settings.datasets, settings.models).cases[:2]
    model = Predictor.load(source_run, device="cpu")
    measured = measure_quality(model, cases, seed=0)
    # Of each case itself and two copies of each kind; crops of one grey value are left out.
    assert [one.copy for one in measured].count("") == 2
    assert len({(one.case, one.copy) for one in measured}) == len(measured) >= 20
    assert {one.class_name for one in measured} == {"blob"}
    assert all(0 <= one.dice <= 1 and 0 <= one.sureness <= 1 for one in measured)
    path = tmp_path / "cases.csv"
    write_quality_cases(path, measured)
    assert read_quality_cases(path) == measured
    assert measure_quality(model, cases, seed=0) == measured
