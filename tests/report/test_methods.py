"""The paragraph on methods says what was minimised, and refers to it."""

from __future__ import annotations

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import UNetSettings
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.report.methods import describe_methods, list_references

CARD = ModelCard(("background", "a"), {"background": 0, "a": 1}, UNetSettings(), 1)


@pytest.mark.parametrize(
    ("overrides", "said", "reference"),
    [
        ((), "minimising the sum of soft Dice loss and cross-entropy;", ""),
        (("models.loss=focal",), "minimising the focal loss;", ""),
        (("models.use_forgiving_loss=true",), "over sets of classes where labels", ""),
        (
            ("finetuning.keep_old=distil",),
            "times 10, the Kullback-Leibler divergence from the source model's probabilities "
            "where labels leave its classes open",
            "Learning without forgetting",
        ),
        (
            ("finetuning.keep_old=everywhere", "finetuning.keep_old_strength=3"),
            "times 3, the Kullback-Leibler divergence from the source model's probabilities (",
            "Learning without forgetting",
        ),
        (("finetuning.regularise=l2sp",), "pull of 0.1 towards the pretrained", "Explicit induct"),
    ],
)
def test_they_say_the_loss(overrides: tuple[str, ...], said: str, reference: str) -> None:
    settings = compose("finetune", ["datasets=phantom", *overrides])
    split = {"subjects": {"train": ["s"]}, "train": ["c"]}
    (text,) = describe_methods(settings, CARD, split, "Training took 1 epoch", None)
    assert said in text
    references = " ".join(list_references(settings, CARD, None))
    assert reference in references
    for other in {"Learning without forgetting", "Explicit induct"} - {reference}:
        assert other not in references


def test_they_say_which_classes_came_out_of_others() -> None:
    settings = compose("finetune", ["datasets=phantom"])
    origins = {"background": ["background"], "a": ["x"], "b": ["x"], "new": ["background"]}
    channels = [
        {"target": name, "rule": "split", "sources": sources} for name, sources in origins.items()
    ]
    weights = {"share_parameters": 1.0, "channels": channels}
    split = {"subjects": {"train": ["s"]}, "train": ["c"]}
    (text,) = describe_methods(settings, CARD, split, "Training took 1 epoch", weights)
    assert "a and b started from the output of x; new started from the output of background" in text
