"""The normalisation and activation layers a network can be built with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hsf_finetune.config.settings import Activation, Norm


def norm_layer(
    kind: Norm, channels: Sequence[int], groups: int | None = None
) -> tuple[str, dict[str, Any]]:
    """MONAI's description of a normalisation.

    Args:
        kind: which normalisation; all but `instance_plain` learn a gain and an offset.
        channels: the channel counts of the layers it is used in.
        groups: of group normalisation; None is the largest of 8, 4, 2 and 1 that
            divides them all.
    """
    if kind == "group":
        common = math.gcd(*channels)
        groups = groups or next(n for n in (8, 4, 2, 1) if common % n == 0)
        return "GROUP", {"num_groups": groups, "affine": True}
    if kind == "instance_plain":
        return "INSTANCE", {"affine": False}
    return kind.upper(), {"affine": True}


def activation_layer(kind: Activation, negative_slope: float) -> tuple[str, dict[str, Any]]:
    """MONAI's description of a non-linearity; the slope is that of `leakyrelu` alone."""
    if kind == "leakyrelu":
        return "LEAKYRELU", {"negative_slope": negative_slope, "inplace": True}
    return kind.upper(), {}
