"""A trained network that segments scans on their own grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.data.preprocessing.load_case import prepare_channels
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef
from hsf_finetune.inference.model_card import Hdf5Geometry, ModelCard
from hsf_finetune.inference.read_scan import Scan, read_channels
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.read_source import find_checkpoint


class Predictor:
    """Segments scans with a network.

    Args:
        anatomy: the network.
        card: the meaning of its channels, and how its inputs are prepared.
        device: where to run it.
    """

    def __init__(self, anatomy: Anatomy, card: ModelCard, device: torch.device) -> None:
        self.card = card
        self.anatomy = anatomy
        self._device = device
        values = [card.label_values[name] for name in card.classes]
        smallest = np.result_type(np.uint8, *(np.min_scalar_type(value) for value in values))
        self._values = np.array(values, dtype=smallest)

    def __repr__(self) -> str:
        classes = ", ".join(self.card.classes)
        channels = count_of(self.card.in_channels, "channel")
        return f"Predictor({self.card.models.name}, {channels} -> {classes}, {self._device})"

    @classmethod
    def load(
        cls,
        run_or_checkpoint: str | Path,
        checkpoint: Literal["best", "last"] = "best",
        device: str = "auto",
    ) -> Predictor:
        """The model of a run folder or checkpoint.

        Args:
            run_or_checkpoint: folder of a run, or a checkpoint of one.
            checkpoint: which one of a run's: of the best epoch, or of the last one.
            device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.

        Raises:
            WeightsError: it cannot be read, or was not written by this package.
            ConfigError: this machine has no such device.
        """
        path = find_checkpoint(run_or_checkpoint, checkpoint)
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
                "the checkpoint's weights and its description of the network contradict each other",
                file=path,
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
        geometry = Hdf5Geometry.from_lists(spacing_mm) if spacing_mm else self.card.hdf5
        volumes = read_channels(scan, self.card.in_channels, key, geometry)
        scores, grid = self._predict_on_network_grid(volumes)
        classes = grid.classes_to_file(scores)
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
        scores, grid = self._predict_on_network_grid(channels)
        return grid.probabilities_to_file(scores)

    def _predict_on_network_grid(self, channels: Sequence[Volume]) -> tuple[Tensor, VoxelGrid]:
        """Scores on the network's grid, (classes, x, y, z), as that grid takes them; and it."""
        how = self.card.preprocessing
        image, grid = prepare_channels(channels, how)
        network = self.anatomy.network.to(self._device).eval()
        with torch.inference_mode():
            logits = volume_logits(
                network,
                image[None].to(self._device),
                self.anatomy.divisor,
                how.window_vox,
                how.padding,
                how.padded_size,
            )[0]
        if grid.resampler.takes_logits:
            return logits.float(), grid
        return logits.float().softmax(dim=0), grid


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
