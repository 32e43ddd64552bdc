"""The description of a model in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.weights.files.checkpoint import FORMAT


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
    """

    classes: tuple[str, ...]
    label_values: Mapping[str, int]
    models: NetworkSettings
    in_channels: int
    target_spacing_mm: tuple[float, ...] | None
    window_vox: tuple[int, int, int]
    channel_names: tuple[str, ...] | None = None
    data: DataSummary | None = None

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
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ModelCard:
        """The card that `plain` describes."""
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
        )
