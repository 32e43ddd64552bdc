"""The normalisation layers a network can be built with."""

from __future__ import annotations

import math
from typing import Any, Literal

Norm = Literal["instance", "batch", "group"]


def norm_layer(kind: Norm, channels: list[int]) -> tuple[str, dict[str, Any]]:
    """MONAI's description of a normalisation with learnt gain and offset.

    Args:
        kind: which normalisation.
        channels: the channel counts it will meet. Group normalisation takes the
            largest of 8, 4, 2 and 1 groups that divides them all.
    """
    if kind == "group":
        common = math.gcd(*channels)
        groups = next(n for n in (8, 4, 2, 1) if common % n == 0)
        return "GROUP", {"num_groups": groups, "affine": True}
    return kind.upper(), {"affine": True}
