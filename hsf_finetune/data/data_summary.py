"""Data in a few numbers, for checkpoints and for reports on new data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsf_finetune.data.typical_scans import Range


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
        usual: name of a quantity of `typical_scans` -> its range; version 0.1.0 had none.
    """

    cases: int
    spacing_mm: tuple[float, ...]
    size_vox: tuple[int, ...]
    contrast: float | None
    profile: Mapping[str, float]
    usual: Mapping[str, Range] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain types, for checkpoints."""
        lists = {"spacing_mm": list(self.spacing_mm), "size_vox": list(self.size_vox)}
        usual = {name: list(ends) for name, ends in self.usual.items()}
        return {**asdict(self), **lists, "profile": dict(self.profile), "usual": usual}

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
            {str(name): (float(a), float(b)) for name, (a, b) in plain.get("usual", {}).items()},
        )
