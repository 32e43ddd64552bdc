"""What a run has learned about its model from validation cases is in the card and in result.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import hsf_finetune as hf
from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.evaluate import cases_of
from hsf_finetune.evaluation.reliability import read_reliability
from hsf_finetune.experiment.validation_lessons import (
    FEWEST_SUBJECTS,
    ValidationLessons,
    describe_lessons,
    share_lessons,
)
from hsf_finetune.inference.calibration import Calibration
from hsf_finetune.inference.postprocessing import Postprocessing, PostprocessingStep
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.rewrite_card import rewrite_card
from tests.evaluation.test_fit_postprocessing import NAMES, case, label, with_specks
from tests.inference.test_predictor import card


def test_a_run_calibrates_its_model(source_run: Path) -> None:
    calibration = Predictor.load(source_run, device="cpu").card.calibration
    assert calibration
    assert calibration.chose_epoch
    assert calibration.likelihood[1] > calibration.likelihood[0]
    result = json.loads((source_run / "result.json").read_text())
    assert Calibration.from_dict(result["calibration"]) == calibration
    found = read_reliability(source_run / "calibration.csv")
    assert calibration.ece == (found["before"].ece, found["after"].ece)
    last = Predictor.load(source_run, "last", device="cpu").card
    assert last.calibration is None


def test_probabilities_are_calibrated_and_labels_stay(source_run: Path) -> None:
    model = hf.load_model(source_run, device="cpu")
    assert isinstance(model, Predictor)
    plain = model.with_card(replace(model.card, calibration=None))
    scan = list(cases_of(source_run, "validation")[0].images)
    before, after = plain.predict(scan), model.predict(scan)
    assert (before.labels == after.labels).all()
    assert (before.probabilities.argmax(axis=0) == after.probabilities.argmax(axis=0)).all()
    assert abs(before.probabilities - after.probabilities).max() > 0.01


def test_settings_switch_both_off(source_run: Path) -> None:
    settings = read_settings_of(source_run)
    off = settings.model_copy(update={"calibration": "off", "postprocessing": "off"})
    assert isinstance(off, Settings)
    lessons = ValidationLessons(off, 1)
    lessons.take(cases_of(source_run, "validation")[0], None, None, None)  # type: ignore[arg-type]
    assert not lessons.voxels
    assert not lessons.segmentations


@pytest.mark.parametrize("count", [1, FEWEST_SUBJECTS - 1, FEWEST_SUBJECTS])
def test_pieces_are_removed_only_where_many_subjects_have_one(source_run: Path, count: int) -> None:
    lessons = ValidationLessons(read_settings_of(source_run), count)
    lessons.segmentations = [case(with_specks(), label())] * count
    lessons.subjects = {f"sub-{n}" for n in range(count)}
    assert bool(lessons.fit_postprocessing(NAMES)) == (count == FEWEST_SUBJECTS)


def test_the_model_on_all_cases_has_what_its_folds_have_learned(
    source_run: Path, tmp_path: Path
) -> None:
    step = PostprocessingStep("largest", ("anterior",))
    folds = [
        replace(
            card(),
            calibration=Calibration((t,), 2, chose, (-0.2, -0.1), (0.04, 0.02)),
            postprocessing=Postprocessing((step, PostprocessingStep("holes", (name,)))),
        )
        for t, chose, name in ((2.0, True, "anterior"), (8.0, False, "posterior"))
    ]
    shared = share_lessons(folds, card())
    assert shared.calibration == Calibration(
        (4.0,), 4, True, shared.calibration.likelihood, shared.calibration.ece
    )
    assert shared.calibration.ece == pytest.approx((0.04, 0.02))
    assert shared.postprocessing.steps == (step,)
    assert share_lessons([folds[0], card()], card()).calibration is None
    text = "\n".join(describe_lessons(shared))
    assert "temperature 4.00" in text
    assert "had chosen the epoch, too" in text
    assert "only the largest piece of anterior is kept" in text


def test_only_the_card_in_a_checkpoint_is_replaced(source_run: Path, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "model.ckpt"
    original = source_run / "checkpoints" / "best.ckpt"
    path.write_bytes(original.read_bytes())
    model = Predictor.load(path, device="cpu")
    rewrite_card(path, replace(model.card, colours={"blob": (1, 2, 3)}))
    old, new = (torch.load(p, weights_only=True) for p in (original, path))
    assert {*old} == {*new}
    assert all(torch.equal(t, new["state_dict"][n]) for n, t in old["state_dict"].items())
    assert Predictor.load(path, device="cpu").card.colours == {"blob": (1, 2, 3)}
