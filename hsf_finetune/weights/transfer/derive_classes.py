"""Which classes of a checkpoint the new classes probably come out of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.labels.laterality import without_side
from hsf_finetune.labels.protocols import split_name
from hsf_finetune.weights.transfer.class_rules import ClassRule

_SHORTEST = 3
"""Letters that a name inside another needs to be taken for the same structure."""
_MOST_OTHERS = 4
"""Classes of a checkpoint that a class of no similar name may come out of."""


def suggest_derivations(
    rules: Sequence[ClassRule], dropped: Sequence[str]
) -> dict[str, str | list[str]]:
    """A value for `finetuning.derive_from`, for the user to confirm.

    Names decide where they tell: `CA2/3` is CA2 and CA3, `left hippocampus` comes out of
    `hippocampus`. A new class whose name resembles none takes the checkpoint's classes that
    no other name claims.

    Returns:
        New class -> class or classes of the checkpoint, for every one for which there are.
    """
    new = [
        rule.target
        for rule in rules
        if rule.rule in ("from background", "fresh") and rule.target != BACKGROUND
    ]
    is_fresh = not any(rule.channels for rule in rules)
    known = [] if is_fresh else [name for name in dropped if name != BACKGROUND]
    related = {name: [old for old in known if _resemble(name, old)] for name in new}
    claimed = {old for found in related.values() for old in found}
    others = [old for old in known if old not in claimed]
    others = others if len(others) <= _MOST_OTHERS else []
    chosen = {name: found or others for name, found in related.items() if found or others}
    return {name: found[0] if len(found) == 1 else found for name, found in chosen.items()}


def _resemble(new: str, old: str) -> bool:
    """Whether one name is, is a part of, or lists the other."""
    (a, side), (b, other_side) = without_side(new), without_side(old)
    if side and other_side and side != other_side:
        return False
    first, second = _listed(a), _listed(b)
    if first & second:
        return True
    short, long = sorted((_bare(a), _bare(b)), key=len)
    return len(short) >= _SHORTEST and not re.search(r"\d", short) and short in long


def _listed(name: str) -> set[str]:
    """What a name lists: ca2 and ca3 for CA2/3, CA2+CA3 and CA23."""
    parts = [part for piece in re.split(r"[+&,]|\band\b", name) for part in split_name(piece)]
    found = {_bare(part) for part in parts}
    for part in tuple(found):
        several = re.fullmatch(r"(ca)([1-4]{2,4})", part)
        if several and sorted({*several[2]}) == [*several[2]]:
            found |= {several[1] + digit for digit in several[2]}
    return found


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
