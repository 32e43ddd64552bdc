"""Whether cases that are scored trained the model as well, so that they say nothing about new scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsf_finetune.data.splits import note_trained


def also_trained(split: Mapping[str, Any], side: str) -> str:
    """How many of the cases of a side trained too, as the end of a phrase; empty for none.

    Args:
        split: from splits.json; with folds, each case is scored by the one that it did not train.
        side: `validation` or `test`.
    """
    if split.get("held_out", True):
        return ""
    both = {*split["train"]} & {*split[side]}
    if side == "test" and not both:
        return ""
    count = len({*split[side]})
    return note_trained(len(both) or count, count)
