"""Whether cases that are scored trained the model as well, so that they say nothing about new scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsf_finetune.data.splits import OF_SOURCE, SOURCE_TRAINED, note_trained


def also_trained(split: Mapping[str, Any], side: str) -> str:
    """How many of the cases of a side trained the model too, or the pretrained one, as the end of a phrase; empty for none.

    Args:
        split: from splits.json; with folds, each case is scored by the one that it did not train.
        side: `validation` or `test`.
    """
    cases = {*split[side]}
    both = {*split["train"]} & cases
    if split.get("held_out", True) or (side == "test" and not both):
        known = cases & {*split.get(SOURCE_TRAINED, ())}
        return note_trained(len(known), len(cases), OF_SOURCE)
    return note_trained(len(both) or len(cases), len(cases))
