"""Agreement of volumes: figures of an independent implementation, and what they mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hsf_finetune.evaluation.metrics import ClassScore
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.evaluation.volume_agreement import (
    agree_in_volume,
    intraclass_correlation,
    volumes_table,
)
from hsf_finetune.system.console import text_of


def row(case: str, truth: float, predicted: float, subject: str = "") -> ScoreRow:
    score = ClassScore("DG", "scored", 0.9, 1.0, 0.9, truth, predicted, 0.0)
    return ScoreRow(case, subject or case, score)


def test_correlation_equals_that_of_an_independent_implementation() -> None:
    # Two of the four judges of Shrout and Fleiss (Psychol Bull 86:420-428, 1979); ICC(A,1) by
    # the package pingouin: .125654 [-.02, .60].
    found = intraclass_correlation([9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], list("abcdef"))
    assert found.mean == pytest.approx(0.125654, abs=1e-6)
    assert (found.low, found.high) == (
        pytest.approx(-0.02, abs=0.005),
        pytest.approx(0.6, abs=0.005),
    )


def test_interval_of_the_correlation_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        volume, noise = rng.normal(0, 3, 20), rng.normal(0, 1, (2, 20))
        found = intraclass_correlation(*(volume + noise), [str(n) for n in range(20)])
        held += found.low <= 0.9 <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_sides_of_a_subject_are_one_measurement() -> None:
    truth, predicted = [100.0, 120.0, 90.0, 110.0], [101.0, 118.0, 95.0, 110.0]
    twice = intraclass_correlation(truth * 2, predicted * 2, list("abcd") * 2)
    once = intraclass_correlation(truth, predicted, list("abcd"))
    assert (twice.mean, twice.low, twice.subjects) == (once.mean, once.low, 4)


@pytest.mark.parametrize("truth", [[100.0, 120.0], [100.0, 100.0, 100.0]])
def test_too_few_or_equal_volumes_have_no_correlation(truth: list[float]) -> None:
    assert math.isnan(intraclass_correlation(truth, truth, list("abc"[: len(truth)])).mean)


@pytest.mark.parametrize("subjects", [3, 12])
def test_no_interval_of_a_bias_has_volumes_below_nothing(subjects: int) -> None:
    rows = [row(str(n), 100.0 * 3 ** (n % 3), 0.0 if n % 3 else 90.0) for n in range(subjects)]
    bias = agree_in_volume(rows)[0].bias_percent
    assert bias.low == -100
    assert -100 < bias.mean < bias.high


def test_bias_and_limits() -> None:
    volumes = [(100.0, 110.0), (200.0, 190.0), (300.0, 330.0)]
    rows = [row(str(n), *pair) for n, pair in enumerate(volumes)]
    one = agree_in_volume([*rows, row("empty", 0.0, 5.0)])[0]
    assert one.bias_percent.mean == pytest.approx(100 * 10 / 200)
    assert one.limits_mm3 == (pytest.approx(10 - 1.96 * 20), pytest.approx(10 + 1.96 * 20))
    assert volumes_table([one]).row_count == 1


def test_volumes_of_small_voxels_keep_their_digits() -> None:
    rows = [row(str(n), 1e-12 * n, 1.2e-12 * n) for n in (1, 2, 3)]
    page = text_of(volumes_table(agree_in_volume(rows)))
    assert "2e-12" in page
    assert "2.4e-12" in page
    assert "+7.92e-13" in page
