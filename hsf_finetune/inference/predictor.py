"""A trained network that segments scans on their own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter
from torch import Tensor

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.preprocessing.grid import Grid, load_image
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.errors import ConfigError, DataError, WeightsError
from hsf_finetune.weights.files.checkpoint import FORMAT
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.locate import locate


@dataclass(frozen=True)
class ModelCard:
    """What a checkpoint says of itself: enough to use it without its configuration.

    Args:
        classes: names of the output channels, background first.
        label_values: class -> the value that segmentations have for it.
        models: settings of the network.
        in_channels: input channels.
        target_spacing_mm: voxel size that scans are resampled to; None keeps theirs.
        window_vox: largest size predicted in one piece.
        channel_names: names of the input channels, if they have any.
        data: what it was trained on, in a few numbers, if that was looked at.
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
        """The card as plain types."""
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


class Predictor:
    """Segments scans with a network.

    Args:
        anatomy: the network.
        card: what its channels mean and how its inputs are prepared.
        device: where to run it.
    """

    def __init__(self, anatomy: Anatomy, card: ModelCard, device: torch.device) -> None:
        self.card = card
        self._anatomy = anatomy
        self._device = device
        values = [card.label_values[name] for name in card.classes]
        smallest = np.result_type(np.uint8, *(np.min_scalar_type(value) for value in values))
        self._values = np.array(values, dtype=smallest)

    @classmethod
    def load(
        cls,
        run_or_checkpoint: str | Path,
        checkpoint: Literal["best", "last"] = "best",
        device: str = "auto",
    ) -> Predictor:
        """The predictor of a run folder or checkpoint.

        Raises:
            WeightsError: it cannot be read, or was not written by this package.
        """
        path = locate(run_or_checkpoint, checkpoint)
        source = read_checkpoint(path)
        if source.meta is None:
            raise WeightsError(
                "the checkpoint does not say what its classes are, so it cannot predict by itself",
                file=path,
                expected="a checkpoint written by finetune.py or train.py",
                fix="fine-tune from it first: finetuning.pretrained=" + str(path),
            )
        try:
            card = ModelCard.from_dict(source.meta)
            anatomy = build(card.models, card.in_channels, len(card.classes))
            anatomy.network.load_state_dict(dict(source.tensors))
            return cls(anatomy, card, pick_device(device))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(
                "the checkpoint's weights and what it says of its network contradict each other",
                file=path,
                found=f"{type(error).__name__}: {str(error)[:300]}",
                expected="a checkpoint as finetune.py or train.py of this version wrote it",
            ) from error

    def predict(self, channels: Sequence[VolumeRef]) -> tuple[npt.NDArray[Any], Volume]:
        """Segments one scan.

        Args:
            channels: one volume per input channel.

        Returns:
            The segmentation with the user's own label values, (X, Y, Z) on the first
            channel's grid, and that channel as it lies in its file.
        """
        classes, first = self.predict_classes(channels)
        return self._values[classes], first

    def predict_classes(
        self, channels: Sequence[VolumeRef]
    ) -> tuple[npt.NDArray[np.uint8], Volume]:
        """Like `predict`, with class indices instead of label values.

        Raises:
            DataError: a wrong number of channels, or files that cannot be used.
        """
        probabilities, grid, first = self._probabilities(channels)
        return grid.classes_out(probabilities), first

    def predict_probabilities(self, channels: Sequence[VolumeRef]) -> tuple[Tensor, Volume]:
        """Like `predict`, with the probabilities of all classes, (classes, X, Y, Z).

        Raises:
            DataError: a wrong number of channels, or files that cannot be used.
        """
        probabilities, grid, first = self._probabilities(channels)
        return grid.scores_out(probabilities), first

    def _probabilities(self, channels: Sequence[VolumeRef]) -> tuple[Tensor, Grid, Volume]:
        """Probabilities on the network's grid, that grid, and the first channel."""
        if len(channels) != self.card.in_channels:
            raise DataError(
                "the model needs another number of input channels",
                file=str(channels[0]) if channels else None,
                found=len(channels),
                expected=self.card.in_channels,
                fix="give the channels of a scan joined by commas: t1.nii.gz,t2.nii.gz",
            )
        image, grid, first = load_image(channels, self.card.target_spacing_mm)
        network = self._anatomy.network.to(self._device).eval()
        with torch.inference_mode():
            logits = volume_logits(
                network,
                image[None].to(self._device),
                self._anatomy.divisor,
                self.card.window_vox,
            )[0]
        return logits.float().softmax(dim=0), grid, first


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA or Apple's GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(
                f"there is no device '{name}' here",
                found=str(error).splitlines()[0],
                expected="auto, cpu, cuda, cuda:1 or mps, as the machine has them",
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
