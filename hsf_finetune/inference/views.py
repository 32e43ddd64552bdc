"""The views of a scan that a network is given in test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from torch import Tensor

from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.labels.laterality import find_side_pairs, side_of
from hsf_finetune.system.errors import ConfigError

ViewKind = Literal["off", "shift", "flip", "all"]
"""`shift`: at eight places of the grid on which the network halves a volume. `flip`: as it is, and
mirrored from left to right. `all`: both together."""


@dataclass(frozen=True)
class View:
    """A scan as a network sees it in one pass.

    Args:
        shift_vox: how far it is shifted along the axes of the network's grid.
        mirrored: axis along which it is mirrored; None is none.
        partners: the class that each class is in a mirrored scan; None is the class itself.
    """

    shift_vox: tuple[int, int, int] = (0, 0, 0)
    mirrored: int | None = None
    partners: tuple[int, ...] | None = None

    def mirror(self, image: Tensor) -> Tensor:
        """The channels of an image, (C, x, y, z), as they are seen."""
        return image if self.mirrored is None else image.flip(self.mirrored + 1)

    def mirror_back(self, scores: Tensor) -> Tensor:
        """The scores of such an image, (classes, x, y, z), as those of the scan."""
        if self.mirrored is None:
            return scores
        back = scores.flip(self.mirrored + 1)
        return back if self.partners is None else back[list(self.partners)]


def views_of(kind: ViewKind, card: ModelCard, divisor: Sequence[int]) -> tuple[View, ...]:
    """The views of a kind; the first one is the scan as it is.

    Args:
        kind: which ones.
        card: of the model, which says whether it has seen mirrored scans.
        divisor: sizes the network needs multiples of; a shift is nearly half of that, and odd, so
            that all levels of the network see another grid.

    Raises:
        ConfigError: scans are to be mirrored, and the model is not known to have seen such.
    """
    shifts = product(*((0, max(step // 2 - 1, 1)) if step > 1 else (0,) for step in divisor))
    places = [*shifts] if kind in ("shift", "all") else [(0, 0, 0)]
    views = [View((x, y, z)) for x, y, z in places]
    if kind in ("flip", "all"):
        axis = next(n for n, end in enumerate(card.preprocessing.orientation) if end in "LR")
        partners = _partners(card)
        views += [View(view.shift_vox, axis, partners) for view in views]
    return tuple(views)


def _partners(card: ModelCard) -> tuple[int, ...] | None:
    """The class that each class is in a mirrored scan."""
    if card.preprocessing.sides != "mirrored":
        known = card.preprocessing.sides == "kept"
        raise ConfigError(
            "the model has not seen mirrored scans, so it cannot segment them",
            found="training mirrored no scan (augmentation.flip)"
            if known
            else "its weights do not say whether training mirrored scans",
            expected="a model whose training mirrored scans from left to right",
            fix="--tta shift",
        )
    if card.partners is not None:
        return card.partners
    # Models of earlier versions say only that scans were mirrored.
    names = card.classes
    pairs = find_side_pairs(names[1:])
    paired = {name for pair in pairs for name in pair[:2]}
    doubtful = [n for n in names[1:] if side_of(n) and n not in paired]
    doubtful += [pair.left for pair in pairs if not pair.certain]
    if doubtful:
        raise ConfigError(
            "the model does not say which classes are each other's left and right",
            found=", ".join(doubtful),
            fix="--tta shift; or train the model again, whose card then says so",
        )
    other = {a: b for pair in pairs for a, b in (pair[:2], pair[1::-1])}
    return tuple(names.index(other.get(name, name)) for name in names) if pairs else None
