"""Temperatures: found where probabilities are known to be wrong, and measured on other subjects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hsf_finetune.evaluation.fit_calibration import fit_calibration
from hsf_finetune.evaluation.reliability import (
    CalibrationCase,
    measure_reliability,
    read_reliability,
    write_reliability,
)
from hsf_finetune.inference.calibration import Calibration, temper


def draw_cases(
    count: int, temperatures: tuple[float, ...], allowed: Tensor | None = None
) -> list[CalibrationCase]:
    """Cases whose labels are drawn from probabilities, which a model gives at other temperatures."""
    cases = []
    for number in range(count):
        random = torch.Generator().manual_seed(number)
        true = (2 * torch.randn(3, 4000, generator=random)).softmax(dim=0)
        label = torch.multinomial(true.T, 1, generator=random)[:, 0]
        sets = torch.eye(3, dtype=torch.bool) if allowed is None else allowed
        told = (true.log() * torch.tensor(temperatures)[:, None]).softmax(dim=0)
        cases.append(CalibrationCase(f"s{number}", told, sets[label].T))
    return cases


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("count", [1, 5])
def test_one_temperature_is_found(temperature: float, count: int) -> None:
    fitted = fit_calibration(draw_cases(count, (temperature,) * 3), chose_epoch=True)
    assert fitted
    if temperature == 1:  # of voxels that are calibrated, little or nothing is changed
        assert fitted.calibration is None or fitted.calibration.temperatures[0] == pytest.approx(
            1, abs=0.05
        )
        return
    found = fitted.calibration
    assert found
    assert found.temperatures == pytest.approx((temperature,), rel=0.06)
    assert found.ece == (fitted.before.ece, fitted.after.ece)
    assert found.ece[1] < 0.25 * found.ece[0]
    assert found.likelihood[1] > found.likelihood[0]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_figures_of_one_subject_alone_are_said_to_be_of_what_it_was_fitted_on(count: int) -> None:
    fitted = fit_calibration(draw_cases(count, (2.0,) * 3), chose_epoch=False)
    assert fitted
    found = fitted.calibration
    assert found
    assert found.held_out == (count > 1)
    assert ("measured on voxels that it was fitted on" in found.line()) == (count == 1)
    assert Calibration.from_dict(found.to_dict()) == found
    earlier = {key: value for key, value in found.to_dict().items() if key != "held_out"}
    assert Calibration.from_dict(earlier) == found
    others = fit_calibration(draw_cases(2, (2.0,) * 3), chose_epoch=False)
    assert others
    assert others.calibration
    assert Calibration.mean([found, others.calibration]).held_out == found.held_out


def test_classes_get_their_own_where_that_helps_other_subjects() -> None:
    fitted = fit_calibration(draw_cases(6, (1.0, 2.0, 3.0)), chose_epoch=False)
    assert fitted
    assert fitted.calibration
    first, second, third = fitted.calibration.temperatures
    assert first < second < third


def test_a_temperature_that_raises_the_calibration_error_is_not_kept() -> None:
    """Few voxels are surely wrong: cooling them pays in likelihood, and blurs all others."""
    told = torch.tensor([[0.95] * 950 + [1 - 1e-12] * 50, [0.05] * 950 + [1e-12] * 50])
    label = torch.tensor([0] * 903 + [1] * 47 + [0] * 40 + [1] * 10)
    sets = torch.eye(2, dtype=torch.bool)[label].T
    cases = [CalibrationCase(f"s{number}", told, sets) for number in range(3)]
    cooled = measure_reliability(cases, [(2.0,)] * 3)
    fitted = fit_calibration(cases, chose_epoch=False)
    assert fitted
    assert fitted.before.ece < cooled.ece
    assert cases[0].likelihood((2.0,)) > cases[0].likelihood((1.0,))
    assert fitted.calibration is None
    assert fitted.after == fitted.before


def test_labels_that_leave_classes_open_are_counted_in_the_likelihood() -> None:
    sets = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=torch.bool)
    fitted = fit_calibration(draw_cases(3, (2.0,) * 3, sets), chose_epoch=False)
    assert fitted
    assert fitted.calibration
    assert fitted.calibration.temperatures == pytest.approx((2,), rel=0.1)
    assert fitted.before.voxels.sum() < 3 * 4000


def test_voxels_are_drawn_around_labels_that_say_something() -> None:
    rows = torch.zeros(20, 20, 20, dtype=torch.uint8)
    rows[8:10, 8:10, 8:10], rows[9, 9, 9] = 1, 2
    sets = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.bool)
    probabilities = torch.rand(3, 20, 20, 20).softmax(dim=0)
    case = CalibrationCase.draw("s", probabilities, rows, sets, 1)
    assert case
    assert case.allowed.shape == (3, 12**3 - 1)
    assert int(case.allowed[1].sum()) == 7
    assert CalibrationCase.draw("s", probabilities, rows * 0, sets, 1) is None
    assert fit_calibration([], chose_epoch=False) is None


def test_the_error_is_that_of_its_definition() -> None:
    told = torch.tensor([[0.9, 0.9, 0.6, 0.2], [0.1, 0.1, 0.4, 0.8]])
    label = torch.tensor([0, 1, 0, 1])
    case = CalibrationCase("s", told, torch.eye(2, dtype=torch.bool)[label].T)
    found = measure_reliability([case], [(1.0,)])
    # Two voxels at .9, of which one is right; one at .6 and one at .8, both right.
    assert found.ece == pytest.approx((2 * 0.4 + 0.4 + 0.2) / 4, abs=1e-6)


def test_the_table_comes_back(tmp_path: Path) -> None:
    fitted = fit_calibration(draw_cases(2, (2.0,) * 3), chose_epoch=False)
    assert fitted
    write_reliability(tmp_path / "calibration.csv", fitted.reliabilities())
    found = read_reliability(tmp_path / "calibration.csv")
    assert [*found] == ["before", "after"]
    for when, one in fitted.reliabilities().items():
        for name in ("voxels", "confidence", "accuracy"):
            np.testing.assert_array_equal(getattr(found[when], name), getattr(one, name))
        assert found[when].ece == one.ece


def test_a_temperature_keeps_the_most_probable_class() -> None:
    told = torch.rand(4, 6, 20, 5).log_softmax(dim=0).mul(3).softmax(dim=0)
    calibration = Calibration((3.0,), 2, True, (-0.2, -0.1), (0.1, 0.01))
    cooled = calibration.apply(told)
    assert torch.equal(cooled.argmax(dim=0), told.argmax(dim=0))
    torch.testing.assert_close(cooled, told.pow(1 / 3) / told.pow(1 / 3).sum(dim=0))
    certain = torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, 2, 2, 2)
    assert temper(certain, (2.0,)).isfinite().all()
    both = Calibration.mean([calibration, Calibration((1.0, 3.0), 1, False, (0, 0), (0, 0))])
    assert both.temperatures == pytest.approx((3**0.5, 3), rel=1e-3)
    assert Calibration.from_dict(calibration.to_dict()) == calibration
