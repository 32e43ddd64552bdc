"""Which channels a new class comes from, as arithmetic on probabilities."""

from __future__ import annotations

import math
import random

import pytest
import torch

from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.transfer.class_rules import make_class_rules, source_class_names
from tests.closeness import assert_equal_up_to_rounding

SOURCE = ("background", "A", "B", "C")


@pytest.mark.parametrize("seed", range(20))
def test_each_source_keeps_its_probability_however_it_is_shared(seed: int) -> None:
    draw = random.Random(seed)
    new = [f"new{i}" for i in range(draw.randint(1, 5))]
    derive_from = {name: draw.choice(SOURCE) for name in new if draw.random() < 0.7}
    others = [*new, *SOURCE[1:]]
    draw.shuffle(others)
    target = ("background", *others)
    rules = make_class_rules(target, SOURCE, 4, derive_from)
    logits = torch.randn(4, generator=torch.Generator().manual_seed(seed)).double()
    shifted = torch.stack([logits[r.channels[0]] + r.bias_shift for r in rules])
    before, after = logits.softmax(0), shifted.softmax(0)
    for channel in range(4):
        children = [i for i, rule in enumerate(rules) if rule.channels == (channel,)]
        assert_equal_up_to_rounding(after[children].sum(), before[channel])


def test_rules_are_named() -> None:
    target = ("background", "B", "front", "back", "fresh blood", "A+C", "renamed")
    derive_from = {"front": "A", "back": "A", "A+C": ["A", "C"], "renamed": ["C"]}
    rules = {r.target: r for r in make_class_rules(target, SOURCE, 4, derive_from)}
    assert {name: rule.rule for name, rule in rules.items()} == {
        "background": "copied",
        "B": "copied",
        "front": "split",
        "back": "split",
        "fresh blood": "from background",
        "A+C": "merged",
        "renamed": "split",
    }
    assert rules["B"].bias_shift == 0
    assert rules["background"].bias_shift == pytest.approx(-math.log(2))
    assert rules["front"].bias_shift == pytest.approx(-math.log(3))
    assert rules["A+C"].bias_shift == pytest.approx(math.log(2) - (math.log(3) + math.log(2)) / 2)
    assert "lossy" in rules["A+C"].line()


def test_other_spelling_is_pointed_out() -> None:
    (_, rule) = make_class_rules(("background", "ca_1"), ("background", "CA1"), 2, {})
    assert rule.rule == "from background"
    assert "'finetuning.derive_from={ca_1: CA1}'" in rule.line()


def test_checkpoint_without_names() -> None:
    rules = make_class_rules(("background", "A"), None, 2, {})
    assert [(r.rule, r.channels) for r in rules] == [("copied by position", (i,)) for i in (0, 1)]
    rules = make_class_rules(("background", "A"), None, 3, {})
    assert [(r.rule, r.channels) for r in rules] == [("fresh", ()), ("fresh", ())]
    assert "3 channels" in rules[0].line()
    with pytest.raises(ConfigError, match="class names"):
        make_class_rules(("background", "A"), None, 2, {"A": "B"})


def test_checkpoint_without_background_leaves_new_classes_fresh() -> None:
    rules = make_class_rules(("background", "A"), ("A", "B"), 2, {})
    assert [(r.rule, r.channels) for r in rules] == [("fresh", ()), ("copied", (0,))]


@pytest.mark.parametrize(
    ("derive_from", "said"),
    [
        ({"anteriour": "A"}, "did you mean 'anterior'"),
        ({"anterior": "hipocampus"}, "did you mean 'hippocampus'"),
        ({"anterior": ["A", "zzz"]}, "'zzz' is not a class of the checkpoint"),
        ({"anterior": []}, "no class for 'anterior'"),
        ({"anterior": "zzz", "posterior": "A"}, r"(?s)several names.*'posterior'.*'zzz'"),
    ],
)
def test_unknown_names(derive_from: dict[str, str | list[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_class_rules(("background", "anterior"), (*SOURCE, "hippocampus"), 5, derive_from)


def test_given_names_stand_in_for_missing_ones_only() -> None:
    assert source_class_names(None, None, 3) is None
    assert source_class_names(SOURCE, None, 4) == SOURCE
    assert source_class_names(SOURCE, list(SOURCE), 4) == SOURCE
    assert source_class_names(None, SOURCE, 4) == SOURCE
    assert source_class_names(None, SOURCE, None) == SOURCE
    with pytest.raises(ConfigError, match="contradicts the checkpoint"):
        source_class_names(SOURCE, ("background", "A", "B", "D"), 4)
    with pytest.raises(ConfigError, match=r"(?s)each of the checkpoint's 5 channels.*4 names"):
        source_class_names(None, SOURCE, 5)


@pytest.mark.parametrize("given", [[], ["A", "background"], ["background", "A", "A"]])
def test_given_names_are_distinct_and_begin_with_the_background(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="'background' is the first"):
        source_class_names(None, given, len(given))


@pytest.mark.parametrize("names", [SOURCE, None])
def test_a_policy_overrules_the_names(names: tuple[str, ...] | None) -> None:
    target = ("background", "B", "X", "Y")
    rules = make_class_rules(target, names, 4, {}, "copy")
    assert [(r.rule, r.channels) for r in rules] == [("copied by position", (i,)) for i in range(4)]
    rules = make_class_rules(target, names, 4, {}, "fresh")
    assert {(r.rule, r.channels) for r in rules} == {("fresh", ())}
    with pytest.raises(ConfigError, match="4 in the checkpoint, 3 in the new head"):
        make_class_rules(target[:3], names, 4, {}, "copy")
    with pytest.raises(ConfigError, match="no effect"):
        make_class_rules(target, names, 4, {"X": "A"}, "fresh")
