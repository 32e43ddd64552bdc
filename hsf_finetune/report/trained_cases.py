"""Whether cases that are scored trained the model as well, so that they say nothing about new scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
    some = 0 < len(both) < len({*split[side]})
    return f", {len(both)} of which also trained" if some else ", which also trained"
