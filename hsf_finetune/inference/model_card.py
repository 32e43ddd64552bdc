"""The description of a model in its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hsf_finetune.config.settings import DatasetSettings, NetworkSettings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.preprocessing.load_case import Preprocessing
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_hdf5
from hsf_finetune.networks.padding import Padding
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
        target_spacing_mm: voxel size that scans are resampled to; None keeps theirs.
        window_vox: largest size predicted in one piece.
        channel_names: names of the input channels, if they have any.
        data: what it was trained on, in a few numbers; None if the data were not checked.
        padding: where volumes are padded.
        crop_margins: leave out the empty margins of scans.
        hdf5: geometry of scans in HDF5 files that do not give one.
    """

    classes: tuple[str, ...]
    label_values: Mapping[str, int]
    models: NetworkSettings
    in_channels: int
    target_spacing_mm: tuple[float, ...] | None
    window_vox: tuple[int, int, int]
    channel_names: tuple[str, ...] | None = None
    data: DataSummary | None = None
    padding: Padding = "both"
    crop_margins: bool = True
    hdf5: Hdf5Geometry = NO_GEOMETRY

    @property
    def preprocessing(self) -> Preprocessing:
        """How the network's inputs are prepared."""
        return Preprocessing(self.target_spacing_mm, self.padding, self.crop_margins)

    def with_preprocessing_of(self, plain: Mapping[str, Any]) -> ModelCard:
        """The card with the padding and cropping of a run's checkpoint, as `to_dict` wrote it."""
        return replace(self, **_edges(plain))

    def to_dict(self) -> dict[str, Any]:
        """The card as plain types, as a checkpoint holds it."""
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "label_values": dict(self.label_values),
            "models": self.models.model_dump(mode="json"),
            "in_channels": self.in_channels,
            "target_spacing_mm": list(self.target_spacing_mm) if self.target_spacing_mm else None,
            "window_vox": list(self.window_vox),
            "channel_names": list(self.channel_names) if self.channel_names else None,
            "data": self.data.to_dict() if self.data else None,
            "padding": self.padding,
            "crop_margins": self.crop_margins,
            "hdf5": asdict(self.hdf5),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ModelCard:
        """The card that `plain` describes; that of version 0.1.0 says less."""
        spacing = plain["target_spacing_mm"]
        x, y, z = plain["window_vox"]
        return cls(
            classes=tuple(plain["classes"]),
            label_values=plain["label_values"],
            models=TypeAdapter(NetworkSettings).validate_python(plain["models"]),
            in_channels=plain["in_channels"],
            target_spacing_mm=tuple(spacing) if spacing else None,
            window_vox=(x, y, z),
            channel_names=tuple(names) if (names := plain.get("channel_names")) else None,
            data=DataSummary.from_dict(data) if (data := plain.get("data")) else None,
            **_edges(plain),
            hdf5=Hdf5Geometry.from_lists(**plain.get("hdf5", {})),
        )


def _edges(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What happens at the edges of a volume; version 0.1.0 did not write it down."""
    return {
        "padding": plain.get("padding", "end"),
        "crop_margins": plain.get("crop_margins", False),
    }


def common_geometry(datasets: Iterable[DatasetSettings]) -> Hdf5Geometry:
    """The geometry that the YAMLs give for HDF5 files; none if they give several."""
    given = [Hdf5Geometry.from_lists(one.spacing_mm, one.affine) for one in datasets]
    return given[0] if len(set(given)) == 1 else NO_GEOMETRY
