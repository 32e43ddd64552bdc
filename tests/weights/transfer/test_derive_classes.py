"""Which of a checkpoint's classes the new ones are said to come out of: every one concerned."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.weights.transfer.class_rules import derive_override, make_class_rules
from hsf_finetune.weights.transfer.derive_classes import suggest_derivations


@pytest.mark.parametrize(
    ("new", "known", "expected"),
    [
        (["anterior", "posterior"], ["whole"], {"anterior": "whole", "posterior": "whole"}),
        (["DG", "CA1", "CA2/3"], ["DG", "CA1", "CA2", "CA3"], {"CA2/3": ["CA2", "CA3"]}),
        (["CA2", "CA3"], ["CA2/3", "DG"], {"CA2": "CA2/3", "CA3": "CA2/3"}),
        (["CA23"], ["CA2", "CA3"], {"CA23": ["CA2", "CA3"]}),
        (["CA1"], ["CA10", "x"], {"CA1": ["CA10", "x"]}),
        (["L_CA1", "R_CA1"], ["CA1"], {"L_CA1": "CA1", "R_CA1": "CA1"}),
        (["left CA1", "right CA1"], ["CA1_L", "CA1_R"], {"left CA1": "CA1_L", "right CA1": "CA1_R"}),
        (["left hippocampus", "gyrus"], ["hippocampus", "cortex"],
         {"left hippocampus": "hippocampus", "gyrus": "cortex"}),
        (["new [part]: 1"], ["a=b, c"], {"new [part]: 1": "a=b, c"}),
        (["tumour"], [f"organ {n}" for n in range(9)], {}),
        (["CA1"], ["CA1"], {}),
    ],
)  # fmt: skip
def test_suggestions_name_every_class_and_compose(
    new: Sequence[str], known: Sequence[str], expected: dict[str, str | list[str]]
) -> None:
    target, source = ("background", *new), ("background", *known)
    rules = make_class_rules(target, source, len(source), {})
    used = {name for rule in rules for name in rule.sources}
    found = suggest_derivations(rules, [name for name in source if name not in used])
    assert found == expected
    if found:
        (override,) = shlex.split(derive_override(found))
        assert compose("finetune", ["datasets=phantom", override]).weights.derive_from == expected


def test_a_head_that_starts_fresh_has_none() -> None:
    rules = make_class_rules(("background", "a"), ("background", "b"), 2, {}, "fresh")
    assert suggest_derivations(rules, ("background", "b")) == {}
