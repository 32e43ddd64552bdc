"""Whether left-right flips are allowed, and which classes they exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.labels.classes import ClassSpace
from hsf_finetune.labels.laterality import other_side
from hsf_finetune.system.errors import ConfigError


@dataclass(frozen=True)
class FlipPlan:
    """Whether left-right flips are allowed, and what they change.

    Args:
        allowed: whether to flip at all.
        partners: for each class, the one that it becomes; None where flips change none.
        remark: a line for the user; empty where no class has a side.
    """

    allowed: bool
    partners: tuple[int, ...] | None = None
    remark: str = ""


def plan_flips(settings: AugmentationSettings, classes: ClassSpace) -> FlipPlan:
    """Decides on flips from the settings and the class names.

    Classes that form a pair are exchanged: a flipped voxel of L_CA1 is one of R_CA1, and
    a set of classes becomes the set of their partners. With `flip: auto` there are no
    flips where a name says left or right and has no partner, since a network would then
    learn the wrong name for the flipped side.

    Raises:
        ConfigError: `lr_pairs` names no class, or one twice.
    """
    pairs = _find_pairs(settings, classes)
    if settings.flip is False:
        return FlipPlan(False)
    paired = {name for pair in pairs for name in pair}
    alone = [n for n in classes.foreground if other_side(n) is not None and n not in paired]
    if alone and settings.flip == "auto":
        return FlipPlan(
            False,
            remark=f"no left-right flips, since these classes have a side but no partner: "
            f"{', '.join(alone)} (to flip, name pairs in augmentation.lr_pairs, or set "
            "augmentation.flip=true)",
        )
    if not pairs:
        return FlipPlan(True)
    partner = {name: other for a, b in pairs for name, other in ((a, b), (b, a))}
    return FlipPlan(
        True,
        tuple(classes.index(partner.get(name, name)) for name in classes.names),
        "left-right flips exchange " + ", ".join(f"{a} and {b}" for a, b in pairs),
    )


def exchange_classes(allowed: Tensor, partners: Sequence[int]) -> Tensor:
    """Sets of classes, (..., classes) bool, with every class replaced by its partner."""
    return allowed[..., list(partners)]


def _find_pairs(settings: AugmentationSettings, classes: ClassSpace) -> list[tuple[str, str]]:
    """Pairs as given, or else the names that differ in left and right only, each pair once."""
    if settings.lr_pairs == "auto":
        names = classes.foreground
        others = [(name, other_side(name), names[n:]) for n, name in enumerate(names, start=1)]
        return [(name, other) for name, other, rest in others if other and other in rest]
    pairs = [(a, b) for a, b in settings.lr_pairs]
    named = [name for pair in pairs for name in pair]
    for name in named:
        repeated = named.count(name) > 1
        if repeated or name not in classes.foreground:
            raise ConfigError(
                "augmentation.lr_pairs needs pairs of classes, each class in one pair at most",
                found=f"'{name}'{' twice' if repeated else ', which is no class of the model'}",
                expected=", ".join(classes.foreground),
            )
    return pairs
