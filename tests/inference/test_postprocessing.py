"""Post-processing is applied wherever a model segments, and goes where its card goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hsf_finetune.inference.ensemble import Ensemble
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.postprocessing import Postprocessing, PostprocessingStep
from tests.conftest import oblique_affine, tiny_case
from tests.inference.test_predictor import card, predictor

STEP = PostprocessingStep("largest", ("posterior",))


def test_labels_volumes_and_scores_are_of_the_labels_after_it() -> None:
    plain = predictor()
    model = plain.with_card(replace(plain.card, postprocessing=Postprocessing((STEP,))))
    scan = model.read((tiny_case(1)[0], oblique_affine()))
    before, after = plain.segment(scan), model.segment(scan)
    indices = (before.labels // 10).astype(np.uint8)
    expected = STEP.apply(indices, plain.card.classes, float(np.prod(scan[0].spacing_mm)))
    assert (expected != indices).any()
    np.testing.assert_array_equal(after.labels, 10 * expected)
    assert after.volumes_mm3["posterior"] < before.volumes_mm3["posterior"]
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    deciding = model.deciding_probabilities(scan).numpy()
    np.testing.assert_array_equal(deciding.argmax(axis=0), expected)
    same = expected == indices
    np.testing.assert_array_equal(deciding[:, same], before.probabilities[:, same])


def test_an_ensemble_does_what_all_of_its_models_do() -> None:
    both = Postprocessing((STEP, PostprocessingStep("holes", ("anterior",))))
    one, two = predictor(), predictor()
    models = [
        one.with_card(replace(one.card, postprocessing=both)),
        two.with_card(replace(two.card, postprocessing=Postprocessing((STEP,)))),
    ]
    assert Ensemble(models).card.postprocessing.steps == (STEP,)
    assert not Ensemble([models[0], two]).card.postprocessing


def test_a_card_brings_it_back() -> None:
    made = replace(card(), postprocessing=Postprocessing((STEP,)))
    assert ModelCard.from_dict(made.to_dict()) == made
    assert not ModelCard.from_dict(card().to_dict()).postprocessing
