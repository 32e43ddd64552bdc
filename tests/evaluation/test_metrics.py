"""Scores agree with hand-computed figures and with brute force."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from hsf_finetune.evaluation.metrics import ClassScore, default_tolerance_mm, score_case
from hsf_finetune.system.errors import DataError

Volume = npt.NDArray[np.int64]
CLASSES = {"CA1": 1, "SUB": 2}
SPACINGS = st.tuples(*[st.sampled_from([0.4, 0.7, 1.0, 2.5])] * 3)
SHAPE = (4, 5, 3)
VOLUMES = arrays(np.int64, SHAPE, elements=st.integers(0, 2))
# Few examples: each one scores several classes with surface distances.
few = settings(max_examples=20, deadline=None)


def cube(start: tuple[int, int, int], side: int, shape: tuple[int, int, int]) -> Volume:
    volume = np.zeros(shape, dtype=np.int64)
    volume[tuple(slice(s, s + side) for s in start)] = 1
    return volume


def score_one(
    prediction: Volume,
    truth: Volume,
    spacing_mm: tuple[float, ...] = (1, 1, 1),
    tolerance_mm: float = 1.0,
) -> ClassScore:
    (score,) = score_case(prediction, truth, {"CA1": 1}, spacing_mm, tolerance_mm)
    return score


def shifted_cubes_nsd(side: int, shift: int, step_mm: float) -> float:
    """NSD at tolerance 0 of cubes a shift along X apart; voxels step_mm x 1 x 1 mm.

    The surface cuts the cube's edges at half a voxel. One slice between voxel layers
    carries four faces and four bevelled edges; a cap carries its interior, its bevelled
    edges and four corner triangles.
    """
    ring = step_mm * (4 * (side - 1) + 4 * math.sqrt(0.5))
    bevel = math.hypot(step_mm / 2, 0.5)
    triangle = 0.5 * math.sqrt(0.25**2 + 2 * (step_mm / 4) ** 2)
    rim = 4 * (side - 1) * bevel + 4 * triangle
    whole = (side - 1) * ring + 2 * (rim + (side - 1) ** 2)
    return ((side - shift) * ring + rim) / whole


@pytest.mark.parametrize(
    ("side", "shift", "step_mm"), [(4, 1, 1.0), (5, 2, 2.5), (6, 3, 0.7), (5, 4, 0.2)]
)
def test_two_cubes_a_shift_apart(side: int, shift: int, step_mm: float) -> None:
    shape = (14, 9, 9)
    truth, prediction = cube((1, 1, 1), side, shape), cube((1 + shift, 1, 1), side, shape)
    spacing = (step_mm, 1.0, 1.0)
    score = score_one(prediction, truth, spacing, tolerance_mm=0)
    assert score.outcome == "scored"
    assert score.dice == pytest.approx((side - shift) / side)
    # A sixth of the surface or so lies the whole shift apart, so the 95th percentile does.
    assert score.hd95_mm == pytest.approx(shift * step_mm)
    assert score.nsd == pytest.approx(shifted_cubes_nsd(side, shift, step_mm), abs=1e-6)
    assert score.volume_truth_mm3 == pytest.approx(side**3 * step_mm)
    assert score.volume_error_percent == 0
    # A distance that equals the tolerance is within it.
    assert score_one(prediction, truth, spacing, tolerance_mm=shift * step_mm).nsd == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_follow_the_spacing_of_their_own_axis(axis: int) -> None:
    spacing = (0.4, 1.5, 3.0)
    truth = cube((1, 1, 1), 1, (5, 5, 5))
    score = score_one(np.roll(truth, 2, axis), truth, spacing)
    assert score.hd95_mm == pytest.approx(2 * spacing[axis])
    assert score.dice == 0
    assert score.nsd == (1 if axis == 0 else 0)


def test_noise_of_a_header_does_not_push_a_distance_over_the_tolerance() -> None:
    truth = cube((1, 1, 1), 1, (9, 3, 3))
    spacing = (0.4 * (1 + 1e-6), 0.4, 0.4)
    assert score_one(np.roll(truth, 5, 0), truth, spacing, tolerance_mm=2.0).nsd == 1
    # Of each voxel, the far side is the whole shift away and the near side one voxel less.
    assert score_one(np.roll(truth, 5, 0), truth, spacing, tolerance_mm=1.99).nsd == 0.5


def test_volume_error_is_signed() -> None:
    truth, prediction = cube((0, 0, 0), 2, (4, 4, 4)), cube((0, 0, 0), 3, (4, 4, 4))
    score = score_one(prediction, truth, (0.5, 1, 2))
    assert score.volume_truth_mm3 == 8
    assert score.volume_predicted_mm3 == 27
    assert score.volume_error_percent == pytest.approx(100 * 19 / 8)
    assert score_one(truth, prediction).volume_error_percent == pytest.approx(-100 * 19 / 27)


def test_a_stray_voxel_moves_the_maximum_but_not_the_percentile() -> None:
    truth = cube((2, 2, 2), 8, (40, 12, 12))
    prediction = truth.copy()
    prediction[39, 2, 2] = 1
    assert score_one(prediction, truth).hd95_mm == 0


def test_classes_that_one_side_lacks() -> None:
    prediction = np.array([[[1, 1, 0, 0, 7]]])
    truth = np.array([[[0, 0, 2, 2, 7]]])
    classes = {"extra": 1, "missed": 2, "nowhere": 3}
    extra, missed, nowhere = score_case(prediction, truth, classes, (1, 1, 1))
    assert [s.outcome for s in (extra, missed, nowhere)] == ["false_positive", "missed", "absent"]
    assert extra.dice == extra.nsd == missed.dice == missed.nsd == 0
    assert math.isnan(extra.hd95_mm)
    assert math.isnan(missed.hd95_mm)
    assert (extra.volume_predicted_mm3, extra.volume_truth_mm3) == (2, 0)
    assert math.isnan(extra.volume_error_percent)
    assert missed.volume_error_percent == -100
    assert all(
        math.isnan(v)
        for v in (nowhere.dice, nowhere.hd95_mm, nowhere.nsd, nowhere.volume_error_percent)
    )
    assert nowhere.volume_truth_mm3 == nowhere.volume_predicted_mm3 == 0


@few
@given(VOLUMES, SPACINGS)
def test_a_volume_agrees_with_itself(volume: Volume, spacing: tuple[float, ...]) -> None:
    for score in score_case(volume, volume, CLASSES, spacing, tolerance_mm=0):
        if score.outcome == "absent":
            assert math.isnan(score.dice)
        else:
            assert (score.dice, score.hd95_mm) == (1, 0)
            assert score.nsd == pytest.approx(1)
            assert score.volume_error_percent == 0


@few
@given(VOLUMES, VOLUMES, SPACINGS, st.sampled_from([0, 0.4, 1, 3]))
def test_prediction_and_truth_may_change_places(
    a: Volume, b: Volume, spacing: tuple[float, ...], tolerance: float
) -> None:
    there = score_case(a, b, CLASSES, spacing, tolerance)
    back = score_case(b, a, CLASSES, spacing, tolerance)
    for one, other in zip(there, back, strict=True):
        same = [one.dice, one.nsd, one.hd95_mm, one.volume_truth_mm3]
        assert same == pytest.approx(
            [other.dice, other.nsd, other.hd95_mm, other.volume_predicted_mm3], nan_ok=True
        )
        assert math.isnan(one.nsd) or 0 <= one.nsd <= 1
        assert math.isnan(one.dice) or 0 <= one.dice <= 1


def brute_hd95(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], spacing: object) -> float:
    surfaces = [np.argwhere(m & ~binary_erosion(m)) * np.asarray(spacing) for m in (a, b)]
    distances = cdist(*surfaces)
    return float(max(np.percentile(distances.min(axis=i), 95) for i in (0, 1)))


@few
@given(VOLUMES, VOLUMES, SPACINGS)
def test_dice_and_hd95_equal_brute_force(a: Volume, b: Volume, spacing: tuple[float, ...]) -> None:
    for score, value in zip(score_case(a, b, CLASSES, spacing), CLASSES.values(), strict=True):
        p, t = a == value, b == value
        if score.outcome == "scored":
            assert score.dice == pytest.approx(2 * (p & t).sum() / (p.sum() + t.sum()))
            assert score.hd95_mm == pytest.approx(brute_hd95(p, t, spacing), rel=1e-5, abs=1e-6)


@few
@given(VOLUMES, VOLUMES)
def test_nsd_grows_with_the_tolerance(a: Volume, b: Volume) -> None:
    scores = [score_one(a, b, (1, 0.7, 2), t).nsd for t in (0, 0.7, 1, 2, 100)]
    if not math.isnan(scores[0]):
        assert scores == sorted(scores)
        both = (a == 1).any() and (b == 1).any()
        assert scores[-1] == pytest.approx(float(both))


@few
@given(VOLUMES, VOLUMES, st.permutations([17, 53, 20_000]))
def test_label_values_are_only_names(a: Volume, b: Volume, values: list[int]) -> None:
    look_up = np.array([0, *values])
    renamed = {"CA1": values[0], "SUB": values[1]}
    plain = score_case(a, b, CLASSES, (1, 1, 2))
    other = score_case(look_up[a], look_up[b], renamed, (1, 1, 2))
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_equal(vars(one), vars(two))


@few
@given(VOLUMES, VOLUMES)
def test_room_around_the_volume_changes_nothing(a: Volume, b: Volume) -> None:
    wide_a, wide_b = (np.pad(v, ((3, 0), (1, 2), (0, 4))) for v in (a, b))
    for one, two in zip(
        score_case(a, b, CLASSES, (1, 1, 2)),
        score_case(wide_a, wide_b, CLASSES, (1, 1, 2)),
        strict=True,
    ):
        assert (one.dice, one.hd95_mm, one.nsd) == pytest.approx(
            (two.dice, two.hd95_mm, two.nsd), nan_ok=True
        )


@few
@given(VOLUMES, VOLUMES)
def test_several_values_are_scored_as_one_class(a: Volume, b: Volume) -> None:
    (union,) = score_case(a, b, {"both": (1, 2)}, (1, 1, 1))
    (merged,) = score_case(np.minimum(a, 1), np.minimum(b, 1), {"both": 1}, (1, 1, 1))
    np.testing.assert_equal(vars(union), vars(merged))


def test_no_warning_reaches_the_terminal(recwarn: pytest.WarningsRecorder) -> None:
    score_one(cube((0, 0, 0), 2, (4, 4, 4)), cube((1, 0, 0), 2, (4, 4, 4)))
    assert not list(recwarn)


def test_what_cannot_be_compared_is_refused() -> None:
    volume = np.zeros((2, 2, 2), dtype=np.uint8)
    with pytest.raises(DataError, match=r"(?s)same grid.*\(2, 2, 2\)"):
        score_case(volume, volume[:1], CLASSES, (1, 1, 1))
    with pytest.raises(DataError, match="prediction must hold integers"):
        score_case(volume.astype(float), volume, CLASSES, (1, 1, 1))
    with pytest.raises(DataError, match="voxel sizes"):
        score_case(volume, volume, CLASSES, (1, 0, 1))
    with pytest.raises(DataError, match="tolerance"):
        score_case(volume, volume, CLASSES, (1, 1, 1), tolerance_mm=-1)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((1, 1, 1), 1.0),
        ((0.1, 0.1, 0.1), 1.0),
        ((0.4, 0.4, 8), 1.0),
        ((6e-6, 6e-6, 6e-6), 6e-6 * math.sqrt(3)),
        ((0.005, 0.005, 0.01), 0.005 * math.sqrt(6)),
        ((30, 30, 30), 30 * math.sqrt(3)),
    ],
)
def test_the_tolerance_fits_the_scale_of_the_data(
    spacing: tuple[float, float, float], expected: float
) -> None:
    assert default_tolerance_mm(spacing) == pytest.approx(expected)


def test_scores_of_electron_microscopy_are_those_of_the_same_voxels_at_another_scale() -> None:
    truth = np.zeros((20, 20, 20), dtype=np.uint8)
    truth[5:15, 5:15, 5:15] = 1
    prediction = np.roll(truth, 4, axis=0)
    (large,) = score_case(prediction, truth, {"x": 1}, (20, 20, 20))
    (small,) = score_case(prediction, truth, {"x": 1}, (6e-6, 6e-6, 6e-6))
    assert small.nsd == pytest.approx(large.nsd)
    assert small.nsd < 0.9
    assert small.hd95_mm == pytest.approx(large.hd95_mm * 6e-6 / 20)
