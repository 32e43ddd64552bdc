"""Whether left-right flips are allowed, and which classes they exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.labels.classes import ClassSpace, other_side
from hsf_finetune.system.errors import ConfigError


@dataclass(frozen=True)
class Flips:
    """What left-right flips may do.

    Args:
        allowed: whether to flip at all.
        partners: for each class, the one that it becomes; None where flips change none.
        remark: what to tell the user about it; empty where there is nothing to tell.
    """

    allowed: bool
    partners: tuple[int, ...] | None = None
    remark: str = ""


def plan_flips(settings: AugmentationSettings, classes: ClassSpace) -> Flips:
    """Decides on flips from the settings and the class names.

    Classes that form a pair are exchanged: a flipped voxel of L_CA1 is one of R_CA1, and
    a set of classes becomes the set of their partners. With `flip: auto` there are no
    flips where a name says left or right and has no partner, since the flipped side
    would then be taught the wrong name.

    Raises:
        ConfigError: `lr_pairs` names no class, or one twice.
    """
    pairs = _pairs(settings, classes)
    if settings.flip is False:
        return Flips(False)
    paired = {name for pair in pairs for name in pair}
    alone = [n for n in classes.foreground if other_side(n) is not None and n not in paired]
    if alone and settings.flip == "auto":
        return Flips(
            False,
            remark=f"no left-right flips: {', '.join(alone)} tell(s) a side and has no partner "
            "(augmentation.lr_pairs names pairs, augmentation.flip=true flips all the same)",
        )
    if not pairs:
        return Flips(True)
    partner = {name: other for a, b in pairs for name, other in ((a, b), (b, a))}
    return Flips(
        True,
        tuple(classes.index(partner.get(name, name)) for name in classes.names),
        "left-right flips exchange " + ", ".join(f"{a} and {b}" for a, b in pairs),
    )


def _pairs(settings: AugmentationSettings, classes: ClassSpace) -> list[tuple[str, str]]:
    if settings.lr_pairs == "auto":
        return _pairs_by_name(classes.foreground)
    pairs = [(a, b) for a, b in settings.lr_pairs]
    named = [name for pair in pairs for name in pair]
    for name in named:
        if name not in classes.foreground or named.count(name) > 1:
            raise ConfigError(
                "augmentation.lr_pairs needs pairs of classes, each class in one pair at most",
                found=f"'{name}', "
                + ("twice" if named.count(name) > 1 else "which is no class of the model"),
                expected=", ".join(classes.foreground),
            )
    return pairs


def _pairs_by_name(names: Sequence[str]) -> list[tuple[str, str]]:
    """Names that differ in left and right only, each pair once."""
    pairs = []
    for number, name in enumerate(names):
        other = other_side(name)
        if other in names[number + 1 :]:
            assert other is not None
            pairs.append((name, other))
    return pairs
