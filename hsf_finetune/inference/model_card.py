"""The description of a model in its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hsf_finetune.config.settings import (
    HSF_PREPROCESSING,
    DatasetSettings,
    NetworkSettings,
    Preprocessing,
)
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_hdf5
from hsf_finetune.weights.files.checkpoint import FORMAT


@dataclass(frozen=True)
class Hdf5Geometry:
    """Geometry for HDF5 files without one, see `VolumeRef`."""

    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def from_lists(
        cls,
        spacing_mm: Sequence[float] | None = None,
        affine: Sequence[Sequence[float]] | None = None,
    ) -> Hdf5Geometry:
        """The geometry of a YAML or a checkpoint."""
        return cls(
            tuple(spacing_mm) if spacing_mm else None,
            tuple(tuple(row) for row in affine) if affine else None,
        )

    def describe(self, path: Path, key: str | None) -> VolumeRef:
        """The volume in a file; `key` names one of several HDF5 datasets."""
        return (
            VolumeRef(path, key, self.spacing_mm, self.affine) if is_hdf5(path) else VolumeRef(path)
        )


NO_GEOMETRY = Hdf5Geometry()


@dataclass(frozen=True)
class ModelCard:
    """The description of a model in its checkpoint: enough to use it without a configuration.

    Args:
        classes: names of the output channels, background first.
        label_values: class -> its value in segmentations.
        models: settings of the network.
        in_channels: input channels.
        preprocessing: how its inputs are made of scans.
        data: what it was trained on, in a few numbers; None if the data were not checked.
        hdf5: geometry of scans in HDF5 files that do not give one.
    """

    classes: tuple[str, ...]
    label_values: Mapping[str, int]
    models: NetworkSettings
    in_channels: int
    preprocessing: Preprocessing = HSF_PREPROCESSING
    data: DataSummary | None = None
    hdf5: Hdf5Geometry = NO_GEOMETRY

    def to_dict(self) -> dict[str, Any]:
        """The card as plain types, as a checkpoint holds it."""
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "label_values": dict(self.label_values),
            "models": self.models.model_dump(mode="json"),
            "in_channels": self.in_channels,
            "preprocessing": self.preprocessing.to_dict(),
            "data": self.data.to_dict() if self.data else None,
            "hdf5": asdict(self.hdf5),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ModelCard:
        """The card that `plain` describes; those of earlier versions say less.

        Raises:
            KeyError, TypeError, ValueError: `plain` is no card.
        """
        return cls(
            classes=tuple(plain["classes"]),
            label_values=plain["label_values"],
            models=TypeAdapter(NetworkSettings).validate_python(plain["models"]),
            in_channels=plain["in_channels"],
            preprocessing=Preprocessing.from_card(plain),
            data=DataSummary.from_dict(data) if (data := plain.get("data")) else None,
            hdf5=Hdf5Geometry.from_lists(**plain.get("hdf5", {})),
        )


def common_geometry(datasets: Iterable[DatasetSettings]) -> Hdf5Geometry:
    """The geometry that the YAMLs give for HDF5 files; none if they give several."""
    given = [Hdf5Geometry.from_lists(one.spacing_mm, one.affine) for one in datasets]
    return given[0] if len(set(given)) == 1 else NO_GEOMETRY
