"""Whether left-right flips are allowed, and which classes they exchange."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.labels.classes import ClassSpace
from hsf_finetune.labels.laterality import find_side_pairs, side_of
from hsf_finetune.system.console import shorten_list
from hsf_finetune.system.errors import ConfigError

_SIMILAR_SIZE = 2.0
"""Largest ratio of the volumes of what may be the two sides of one structure."""
_SAME_LEVEL = 0.5
"""Share of its height and of its depth that the smaller one has to have in common."""
_GAP = 0.15
"""Smallest gap between them, as a share of their width: neighbours touch."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class LabelPlaces:
    """Where the labels of a case lie.

    Args:
        case: the case.
        extents: from the 5th to the 95th percentile of their voxels along x, y and z, in
            voxels, (rows, 3, 2); NaN without a voxel.
        voxels: of each label row, (rows,).
    """

    case: Case
    extents: npt.NDArray[np.float64]
    voxels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class SideEvidence:
    """What the positions of labels tell about sides.

    Args:
        opposite: pairs (left, right) of classes that look like one structure's two sides: in
            every case that draws both they lie beside each other with a gap, and are similar in
            size.
        together: all pairs that some case draws, in both orders.
    """

    opposite: frozenset[Pair] = frozenset()
    together: frozenset[Pair] = frozenset()


def weigh_sides(places: Iterable[LabelPlaces], classes: ClassSpace) -> SideEvidence:
    """What the positions of labels in all training cases tell about sides."""
    count = len(classes)
    together, beside = np.zeros((2, count, count), dtype=np.int64)
    for one in places:
        rows = one.case.protocol.matrix
        alone = rows.sum(axis=1) == 1
        row_of = [np.flatnonzero(alone & rows[:, n])[:1] for n in range(count)]
        drawn = [n for n in range(1, count) if len(row_of[n]) and one.voxels[row_of[n][0]]]
        found = np.array([row_of[n][0] for n in drawn], dtype=np.int64)
        (low, high), voxels = np.moveaxis(one.extents[found], 2, 0), one.voxels[found]
        shorter = np.minimum(high - low, (high - low)[:, None])
        common = np.minimum(high, high[:, None]) - np.maximum(low, low[:, None])
        is_level = (common >= _SAME_LEVEL * shorter)[..., 1:].all(axis=2)
        is_left = low[None, :, 0] - high[:, None, 0] > _GAP * shorter[..., 0]
        is_similar = voxels[:, None] <= _SIMILAR_SIZE * voxels
        grid = np.ix_(drawn, drawn)
        together[grid] += 1
        beside[grid] += is_left & is_level & is_similar & is_similar.T
    name = classes.names

    def pairs(chosen: npt.NDArray[np.bool_]) -> frozenset[Pair]:
        return frozenset((name[a], name[b]) for a, b in np.argwhere(chosen) if a != b)

    return SideEvidence(pairs((beside == together) & (together > 0)), pairs(together > 0))


@dataclass(frozen=True)
class FlipPlan:
    """Whether left-right flips are allowed, and what they change.

    Args:
        allowed: whether to flip at all.
        partners: for each class, the one that it becomes; None where flips change none.
        remark: a line for the user.
    """

    allowed: bool
    partners: tuple[int, ...] | None = None
    remark: str = ""


def plan_flips(
    settings: AugmentationSettings, classes: ClassSpace, evidence: SideEvidence = SideEvidence()
) -> FlipPlan:
    """Decides on flips from the settings, the class names, and where the labels lie.

    Classes that form a pair are exchanged: a flipped voxel of L_CA1 is one of R_CA1, and
    a set of classes becomes the set of their partners. With `flip: auto` there are no
    flips where a class has a side, by its name or its place, and no partner, since a network
    would then learn the wrong name for the flipped side.

    Raises:
        ConfigError: `lr_pairs` names no class, or one twice.
    """
    pairs = _find_pairs(settings, classes, evidence)
    if settings.flip is False or settings.pipeline == "none":
        setting = "flip=false" if settings.flip is False else "pipeline=none"
        return FlipPlan(False, remark=f"left-right flips: off, by augmentation.{setting}")
    paired = {name for pair in pairs for name in pair}
    alone = [n for n in classes.foreground if side_of(n) and n not in paired]
    apart = sorted(pair for pair in evidence.opposite if not paired & {*pair})
    if settings.flip == "auto" and (alone or apart):
        reason = f"these classes have a side but no partner: {', '.join(alone)}"
        if not alone:
            found = shorten_list([f"{a} left of {b}" for a, b in apart], 3)
            reason = f"in every case {found}, as if they were two sides of one structure"
        return FlipPlan(
            False,
            remark=f"left-right flips: off, since {reason} (to flip, name pairs in "
            "augmentation.lr_pairs, or set augmentation.flip=true)",
        )
    if not pairs:
        return FlipPlan(True, remark="left-right flips: on; no class has a side, none is exchanged")
    partner = {name: other for a, b in pairs for name, other in ((a, b), (b, a))}
    exchanged = ", ".join(f"{a} and {b}" for a, b in pairs)
    return FlipPlan(
        True,
        tuple(classes.index(partner.get(name, name)) for name in classes.names),
        f"left-right flips: on; they exchange {exchanged}",
    )


def exchange_classes(allowed: Tensor, partners: Sequence[int]) -> Tensor:
    """Sets of classes, (..., classes) bool, with every class replaced by its partner."""
    return allowed[..., list(partners)]


def _find_pairs(
    settings: AugmentationSettings, classes: ClassSpace, evidence: SideEvidence
) -> list[Pair]:
    """Pairs as given, or else the names that differ in left and right only, each pair once.

    A doubtful pair is none if the two are drawn together and do not lie on opposite sides.
    """
    if settings.lr_pairs == "auto":
        return [
            (pair.left, pair.right)
            for pair in find_side_pairs(classes.foreground)
            if pair.certain
            or (pair.left, pair.right) not in evidence.together
            or evidence.opposite & {(pair.left, pair.right), (pair.right, pair.left)}
        ]
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
