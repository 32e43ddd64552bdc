"""Dice of a segmentation whose truth is unknown, foretold from how sure the model is of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

_WORST, _BEST = 0.02, 0.999
"""Dice beyond these is taken for these, so that its logit is finite."""
TEMPERATURE = 1.5
"""Softens the probabilities: networks are surer than they are right. With more of it the background,
most of which is far from the class, has too much weight."""


@dataclass
class SurenessSums:
    """Adds up, part by part of a volume, how sure a model is of each class that it finds.

    The sureness of a class is the Dice of its mask m and its softened probabilities p,
    2 sum(m p) / (sum(m) + sum(p)): of right probabilities, about the Dice with the truth (Li et
    al., Medical Image Analysis 77:102317, 2022, estimate performance from confidences so).

    Args:
        temperature: that softens the probabilities.
    """

    temperature: float = TEMPERATURE
    _sums: list[Tensor] = field(default_factory=list)

    def start(self) -> None:
        """Begins a volume."""
        self._sums = []

    def add(self, scores: Tensor) -> None:
        """Adds a part of the volume.

        Args:
            scores: logits, or logarithms of probabilities, (classes, x, y, z).
        """
        p = (scores / self.temperature).softmax(dim=0).flatten(1)
        highest, found = p.max(dim=0)
        inside = torch.zeros(len(p), device=p.device).index_add_(0, found, highest)
        size = torch.bincount(found, minlength=len(p)).to(p.dtype)
        self._sums.append(torch.stack([inside, size, p.sum(dim=1)]).double().cpu())

    def sureness(self) -> tuple[float, ...]:
        """The sureness of each class but the background, 0 to 1; 0 of one that was not found."""
        inside, size, mass = torch.stack(self._sums).sum(dim=0)
        found: list[float] = (2 * inside / (size + mass).clamp_min(1e-9)).tolist()
        return tuple(found[1:])


@dataclass(frozen=True)
class Foretold:
    """What is expected of the segmentation of a class, or of the mean over the classes.

    Args:
        class_name: the class, or `MEAN`.
        dice: expected Dice.
        low: Dice that a share `QualityModel.coverage` of those that it was fitted on reaches; of
            other scans fewer do (see docs/quality.md).
    """

    class_name: str
    dice: float
    low: float


FEWEST_SUBJECTS = 3
"""With fewer held-out subjects the errors on unseen ones are not known."""
MEAN = "mean"
"""In place of the name of a class: the mean over all of them."""


@dataclass(frozen=True)
class QualityModel:
    """Foretells Dice: a linear model of the logit of 1 - Dice, with a conformal bound.

    The bound is what is expected, less a quantile of the errors on held-out subjects, each of which
    was foretold without it (Barber et al., Annals of Statistics 49:486, 2021).

    Args:
        constants: class -> constant of the linear model.
        slope: of the loss of the sureness (see `to_loss`); not negative.
        margin: quantile of the errors, as a loss.
        mean_margin: that of the mean over the classes.
        typical: mean Dice that is expected of an ordinary scan.
        coverage: share of the segmentations that reach their bound.
        subjects: held-out subjects that it was fitted on.
        volumes: their scans, and degraded copies of these, that it was fitted on.
        temperature: of the probabilities behind the sureness; 4 in cards that do not give it.
    """

    constants: Mapping[str, float]
    slope: float
    margin: float
    mean_margin: float
    typical: float
    coverage: float
    subjects: int
    volumes: int
    temperature: float = 4.0

    def foretell(self, classes: Sequence[str], sureness: Sequence[float]) -> tuple[Foretold, ...]:
        """What is expected of each class that it was fitted on, and last of their mean.

        Args:
            classes: their names, without the background.
            sureness: of each, see `SurenessSums`.
        """
        known = [(n, s) for n, s in zip(classes, sureness, strict=True) if n in self.constants]
        losses = [self.constants[name] + self.slope * to_loss(one) for name, one in known]
        mean = fmean(map(to_dice, losses))
        return (
            *(
                Foretold(name, to_dice(loss), to_dice(loss + self.margin))
                for (name, _), loss in zip(known, losses, strict=True)
            ),
            Foretold(MEAN, mean, to_dice(to_loss(mean) + self.mean_margin)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The model as plain types, for a model card."""
        return {**asdict(self), "constants": dict(self.constants)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> QualityModel:
        """The model that `to_dict` gave.

        Raises:
            TypeError: `plain` is no such model.
        """
        return cls(**plain)


def to_loss(share: float) -> float:
    """The logit of 1 - share, for a share of 0 to 1: the larger, the worse."""
    kept = min(max(share, _WORST), _BEST)
    return math.log((1 - kept) / kept)


def to_dice(loss: float) -> float:
    """The share that a loss of `to_loss` belongs to."""
    return 1 / (1 + math.exp(loss)) if loss < 0 else math.exp(-loss) / (1 + math.exp(-loss))
