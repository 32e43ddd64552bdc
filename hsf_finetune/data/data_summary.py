"""Data in a few numbers, for checkpoints and for reports on new data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DataSummary:
    """What a model was trained on.

    Args:
        cases: their number.
        spacing_mm: median voxel size along RAS+ axes.
        size_vox: median size of the volumes along RAS+ axes.
        contrast: median intensity of labelled voxels minus that of their surroundings, in
            standard deviations of the surroundings; None where it could not be measured.
        profile: class -> its median in the z-normalised image, for classes that have
            labels by themselves.
    """

    cases: int
    spacing_mm: tuple[float, ...]
    size_vox: tuple[int, ...]
    contrast: float | None
    profile: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain types, for checkpoints."""
        lists = {"spacing_mm": list(self.spacing_mm), "size_vox": list(self.size_vox)}
        return {**asdict(self), **lists, "profile": dict(self.profile)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DataSummary:
        """The summary that `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: `plain` is no summary.
        """
        return cls(
            int(plain["cases"]),
            tuple(float(n) for n in plain["spacing_mm"]),
            tuple(int(n) for n in plain["size_vox"]),
            None if plain["contrast"] is None else float(plain["contrast"]),
            {str(name): float(value) for name, value in plain["profile"].items()},
        )
