"""What a defect is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.zoo.cohorts import Cohort

Damage = Callable[[Cohort], Path]


@dataclass(frozen=True)
class Defect:
    """A way to damage a cohort, and what the check is to say of it.

    Args:
        name: of the defect.
        damage: does it, and returns the path that the message has to name.
        tier: it belongs into.
        words: of the message; the remedy is checked for all.
        cohort: which clean cohort it damages.
        overrides: settings that belong to it.
    """

    name: str
    damage: Damage
    tier: Literal["repaired", "warned", "refused"]
    words: tuple[str, ...]
    cohort: Literal["msd", "both_sides", "named_sides"] = "msd"
    overrides: tuple[str, ...] = ()
