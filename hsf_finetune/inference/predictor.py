"""A trained network that segments scans on their own grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.data.preprocessing.load_case import prepare_channels
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef
from hsf_finetune.inference.engine_choice import EngineChoice
from hsf_finetune.inference.engines import GRAPH_ENGINES, EngineName, Network
from hsf_finetune.inference.model_card import Hdf5Geometry, ModelCard
from hsf_finetune.inference.read_scan import Scan, read_channels
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.exported_folder import weights_of_export
from hsf_finetune.weights.sources.read_source import find_checkpoint, is_of_other_tool

_SLICES = 16
"""Planes of a volume whose probabilities are computed at once."""


class Predictor:
    """Segments scans with a network.

    Args:
        anatomy: the network.
        card: the meaning of its channels, and how its inputs are prepared.
        device: where to run it.
        engine: what runs it, see `EngineChoice`.
        tensors: its weights; None are those of the network. With them the network may be given
            as a function, which is called where it is needed.
    """

    def __init__(
        self,
        anatomy: Anatomy | Callable[[], Anatomy],
        card: ModelCard,
        device: torch.device,
        engine: EngineName = "torch",
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.card = card
        self._given = anatomy
        self._device = device
        self._engines = EngineChoice(engine, device, card, lambda: self.anatomy, tensors)
        if self._engines.needs_network:
            self._given = self.anatomy
        values = [card.label_values[name] for name in card.classes]
        smallest = np.result_type(np.uint8, *(np.min_scalar_type(value) for value in values))
        self._values = np.array(values, dtype=smallest)

    def __repr__(self) -> str:
        classes = ", ".join(self.card.classes)
        channels = count_of(self.card.in_channels, "channel")
        return f"Predictor({self.card.models.name}, {channels} -> {classes}, {self._device})"

    @cached_property
    def anatomy(self) -> Anatomy:
        """The network."""
        return self._given if isinstance(self._given, Anatomy) else self._given()

    @classmethod
    def load(
        cls,
        weights: str | Path,
        checkpoint: Literal["best", "last"] = "best",
        device: str = "auto",
        settings: Sequence[str] = (),
        say: Callable[[str], None] = lambda line: None,
        engine: EngineName = "torch",
    ) -> Predictor:
        """The model of a run, a checkpoint, or any weights that say their classes and inputs.

        Args:
            weights: folder of a run, a checkpoint of one, or what `finetuning.pretrained`
                takes: an nnU-Net, a MONAI bundle, named weights, an address.
            checkpoint: which one of several: of the best epoch, or of the last one.
            device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.
            settings: of weights by others: what they do not say, or not rightly, as for
                finetune.py: `preprocessing=hsf`, `finetuning.source_classes=[background,DG]`.
            say: called with each line about the origin of weights by others.
            engine: what runs the network: `torch`; `onnxruntime` or `openvino`, on the CPU; or
                `auto`, the fastest one that finds the same.

        Raises:
            WeightsError: it cannot be read, or does not say what is needed.
            ConfigError: this machine has no such device or engine, or a setting is wrong.
        """
        chosen = pick_device("cpu" if device == "auto" and engine in GRAPH_ENGINES else device)
        source = None if settings else _read_own(weights, checkpoint)
        if source is None or source.meta is None:
            # Imported late: only the weights of others are described by settings.
            from hsf_finetune.inference.weights_model import model_of_weights

            anatomy, card = model_of_weights(weights, checkpoint, settings, say)
            return cls(anatomy, card, chosen, engine)

        def build_network() -> Anatomy:
            # Imported late, since MONAI imports all of itself.
            from hsf_finetune.networks.build import build

            anatomy = build(card.models, card.in_channels, len(card.classes))
            anatomy.network.load_state_dict(dict(source.tensors))
            return anatomy

        try:
            card = ModelCard.from_dict(source.meta)
            return cls(build_network, card, chosen, engine, source.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(
                "the checkpoint's weights and its description of the network contradict each other",
                file=source.path,
                found=f"{type(error).__name__}: {str(error)[:300]}",
                expected="a checkpoint as finetune.py or train.py of this version wrote it",
            ) from error

    def predict(
        self, scan: Scan, key: str | None = None, spacing_mm: Sequence[float] | None = None
    ) -> Segmentation:
        """Segments one scan.

        Args:
            scan: a NIfTI or HDF5 file (str or Path), a nibabel image, or (array, affine) with an
                array of shape (X, Y, Z) and a 4x4 affine to RAS+ millimetres; of a model with
                several input channels, a list of these, all on one grid.
            key: HDF5 dataset inside the files; None if they hold just one.
            spacing_mm: voxel size of HDF5 files that do not give one; None is that of the
                files that the model was trained on, if those did not either.

        Returns:
            Labels with the user's own values on the grid of the scan's first channel, with
            volumes and probabilities.

        Raises:
            DataError: the number of channels is wrong, or a channel cannot be used.
        """
        return self.segment(self.read(scan, key, spacing_mm))

    def read(
        self, scan: Scan, key: str | None = None, spacing_mm: Sequence[float] | None = None
    ) -> list[Volume]:
        """The channels of a scan, as `predict` takes it.

        Raises:
            DataError: the number of channels is wrong, or a channel cannot be read.
        """
        geometry = Hdf5Geometry.from_lists(spacing_mm) if spacing_mm else self.card.hdf5
        return read_channels(scan, self.card.in_channels, key, geometry)

    def segment(self, volumes: Sequence[Volume]) -> Segmentation:
        """Segments the channels of a scan that has been read.

        Raises:
            DataError: a channel cannot be used.
        """
        image, grid = prepare_channels(volumes, self.card.preprocessing)
        classes = self._engines.segment(
            lambda network: grid.classes_to_file(self._scores(network, image, grid))
        )
        voxels = np.bincount(classes.ravel(), minlength=len(self.card.classes))
        volumes_mm3 = voxels * math.prod(volumes[0].spacing_mm)
        return Segmentation(
            labels=self._values[classes],
            label_values={name: self.card.label_values[name] for name in self.card.classes},
            volumes_mm3=dict(zip(self.card.classes[1:], volumes_mm3[1:].tolist(), strict=True)),
            channels=tuple(volumes),
            card=self.card,
            predict_probabilities=lambda: self._predict_on_file_grid(volumes).numpy(),
        )

    def predict_probabilities(self, channels: Sequence[VolumeRef]) -> tuple[Tensor, Volume]:
        """Probabilities of all classes, (classes, X, Y, Z), and the scan's first channel.

        Raises:
            DataError: as `predict`.
        """
        volumes = read_channels(list(channels), self.card.in_channels)
        return self._predict_on_file_grid(volumes), volumes[0]

    def _predict_on_file_grid(self, channels: Sequence[Volume]) -> Tensor:
        image, grid = prepare_channels(channels, self.card.preprocessing)
        scores = self._scores(self._engines.network(), image, grid, probabilities=True)
        return grid.probabilities_to_file(scores)

    def _scores(
        self, network: Network, image: Tensor, grid: VoxelGrid, probabilities: bool = False
    ) -> Tensor:
        """Scores on the network's grid, (classes, x, y, z), as that grid takes them.

        Where they are not resampled, the highest of the logits decides as that of the
        probabilities, unless these are wanted.
        """
        divisor = self._engines.divisor
        how = self.card.preprocessing
        with torch.inference_mode():
            logits = volume_logits(network, image[None].to(self._device), divisor, how)[0].float()
            if not grid.resampler.takes_logits and (
                probabilities or not grid.resampler.changes_nothing
            ):
                for part in logits.split(_SLICES, dim=1):
                    part.copy_(part.softmax(dim=0))  # in place: of many classes, logits are large
        return logits


def _read_own(weights: str | Path, checkpoint: Literal["best", "last"]) -> Checkpoint | None:
    """What a path holds, if it is a run or a single file; None of anything else."""
    path = weights_of_export(Path(weights).expanduser())
    if not path.exists() or is_of_other_tool(path):
        return None
    return read_checkpoint(find_checkpoint(path, checkpoint))


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA or Apple's GPU where there is one.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(
                f"there is no device '{name}' on this machine",
                found=str(error).splitlines()[0],
                expected="auto, cpu, cuda, cuda:1 or mps, as the machine has them",
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
