"""The description of a model in its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from hsf_finetune.data.volumes.read_volume import VolumeRef, has_keys, is_hdf5
from hsf_finetune.inference.calibration import Calibration
from hsf_finetune.inference.postprocessing import Postprocessing
from hsf_finetune.inference.quality_model import QualityModel
from hsf_finetune.labels.label_colours import Colour, LabelRow, label_rows
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
        """The volume in a file or DICOM folder; `key` names one of several in it."""
        if is_hdf5(path):
            return VolumeRef(path, key, self.spacing_mm, self.affine)
        return VolumeRef(path, key if has_keys(path) else None)


NO_GEOMETRY = Hdf5Geometry()
NO_POSTPROCESSING = Postprocessing()
_ORIGIN = ("name", "format", "version", "licence", "citation", "url")


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
        origin: of the pretrained weights in it: name, licence, citation, ...
        colours: class -> its colour, of the classes that have one in the training data.
        partners: of a model that has seen mirrored scans, the class that each class is in one;
            None is not recorded.
        calibration: makes its probabilities mean something; None where none was fitted.
        postprocessing: of its labels.
        quality: foretells Dice of its segmentations; None of a model that was not validated so.
        regions: whether classes may overlap, as in nnU-Net's regions: the last one whose logit is
            above the background's counts, not the highest.
    """

    classes: tuple[str, ...]
    label_values: Mapping[str, int]
    models: NetworkSettings
    in_channels: int
    preprocessing: Preprocessing = HSF_PREPROCESSING
    data: DataSummary | None = None
    hdf5: Hdf5Geometry = NO_GEOMETRY
    origin: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[str, Colour] = field(default_factory=dict)
    partners: tuple[int, ...] | None = None
    calibration: Calibration | None = None
    postprocessing: Postprocessing = NO_POSTPROCESSING
    quality: QualityModel | None = None
    regions: bool = False

    @property
    def label_rows(self) -> tuple[LabelRow, ...]:
        """Value, name and colour of each class but the background."""
        values = {name: self.label_values[name] for name in self.classes}
        return label_rows(values, self.colours)

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
            "origin": dict(self.origin),
            "colours": {name: list(colour) for name, colour in self.colours.items()},
            "partners": list(self.partners) if self.partners else None,
            "calibration": self.calibration.to_dict() if self.calibration else None,
            "postprocessing": self.postprocessing.to_list(),
            "quality": self.quality.to_dict() if self.quality else None,
            **({"regions": True} if self.regions else {}),
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
            colours={name: (r, g, b) for name, (r, g, b) in plain.get("colours", {}).items()},
            origin=known_origin(plain.get("origin", {})),
            partners=tuple(partners) if (partners := plain.get("partners")) else None,
            calibration=Calibration.from_dict(fitted)
            if (fitted := plain.get("calibration"))
            else None,
            postprocessing=Postprocessing.from_list(plain.get("postprocessing", ())),
            quality=QualityModel.from_dict(quality) if (quality := plain.get("quality")) else None,
            regions=plain.get("regions", False),
        )


def known_origin(origin: Mapping[str, Any]) -> dict[str, str]:
    """What a card keeps of the origin of weights: what a user of the model has to know."""
    return {key: str(origin[key]) for key in _ORIGIN if origin.get(key)}


def common_geometry(datasets: Iterable[DatasetSettings]) -> Hdf5Geometry:
    """The geometry that the YAMLs give for HDF5 files; none if they give several."""
    given = [Hdf5Geometry.from_lists(one.spacing_mm, one.affine) for one in datasets]
    return given[0] if len(set(given)) == 1 else NO_GEOMETRY
