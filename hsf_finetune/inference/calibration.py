"""Probabilities that mean something: temperatures that were fitted on validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

SMALLEST = 1e-20
"""Probabilities below this are counted as this, so that each has a logarithm."""
IN_SAMPLE = "after measured on voxels that it was fitted on, so that it flatters"
"""What is said of figures for which no subject was left."""
_SLICES = 16
"""Planes of a volume that are calibrated at once."""


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling (Guo et al., On calibration of modern neural networks, ICML 2017).

    The logarithms of the probabilities are divided by a temperature and made to probabilities
    again: above 1 they become less sure. Labels stay those of the probabilities as they were.

    Args:
        temperatures: one for all classes, or one for each.
        subjects: of the validation cases that it was fitted on.
        chose_epoch: whether those cases had chosen the epoch, too.
        likelihood: mean log-likelihood of a voxel's label, before and after.
        ece: expected calibration error, before and after, see `evaluation.fit_calibration`.
        held_out: whether both are of subjects that it was not fitted on, which one subject alone
            cannot have.
    """

    temperatures: tuple[float, ...]
    subjects: int
    chose_epoch: bool
    likelihood: tuple[float, float]
    ece: tuple[float, float]
    held_out: bool = True

    def apply(self, probabilities: Tensor) -> Tensor:
        """Calibrated probabilities, (classes, X, Y, Z), of such."""
        parts = (temper(part, self.temperatures) for part in probabilities.split(_SLICES, dim=1))
        return torch.cat([*parts], dim=1)

    @classmethod
    def mean(cls, several: Sequence[Calibration]) -> Calibration:
        """The geometric mean of the temperatures of models that are alike, such as folds."""
        size = max(len(one.temperatures) for one in several)
        spread = [one.temperatures * (size // len(one.temperatures)) for one in several]
        temperatures = torch.tensor(spread).log().mean(dim=0).exp().tolist()
        likelihood = torch.tensor([one.likelihood for one in several]).mean(dim=0).tolist()
        ece = torch.tensor([one.ece for one in several]).mean(dim=0).tolist()
        return cls(
            tuple(round(value, 4) for value in temperatures),
            sum(one.subjects for one in several),
            any(one.chose_epoch for one in several),
            (likelihood[0], likelihood[1]),
            (ece[0], ece[1]),
            all(one.held_out for one in several),
        )

    def line(self) -> str:
        """What it does, in a sentence."""
        values = ", ".join(f"{value:.2f}" for value in self.temperatures)
        word = "temperatures" if len(self.temperatures) > 1 else "temperature"
        return (
            f"{word} {values}: expected calibration error {self.ece[0]:.3f} before and "
            f"{self.ece[1]:.3f} after, log-likelihood of a voxel {self.likelihood[0]:.3f} and "
            f"{self.likelihood[1]:.3f}{'' if self.held_out else f', {IN_SAMPLE}'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The value as plain types, as a model card holds it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Calibration:
        """The value that `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: `plain` is none.
        """
        before, after = plain["likelihood"]
        first, second = plain["ece"]
        return cls(
            tuple(map(float, plain["temperatures"])),
            int(plain["subjects"]),
            bool(plain["chose_epoch"]),
            (before, after),
            (first, second),
            bool(plain.get("held_out", plain["subjects"] > 1)),
        )


def temper(probabilities: Tensor, temperatures: tuple[float, ...] | Tensor) -> Tensor:
    """Probabilities at other temperatures.

    Args:
        probabilities: (classes, ...).
        temperatures: one, or one for each class.
    """
    divisors = torch.as_tensor(temperatures, dtype=probabilities.dtype)
    divisors = divisors.reshape(-1, *[1] * (probabilities.dim() - 1))
    return (probabilities.clamp(min=SMALLEST).log() / divisors).softmax(dim=0)
