"""What segments scans: a network, or several passes of one or more whose probabilities are averaged."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef
from hsf_finetune.inference.model_card import Hdf5Geometry, ModelCard
from hsf_finetune.inference.quality_model import SurenessSums
from hsf_finetune.inference.read_scan import Scan, read_channels
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.inference.views import ViewKind
from hsf_finetune.system.caller_state import kept_caller_state

_INDICES = 1_000_000
"""So many classes of voxels become label values at once."""


class ScanModel(ABC):
    """Segments scans by the mean of the probabilities of all its passes.

    Args:
        card: the meaning of its classes, and how scans are read.
    """

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    @property
    @abstractmethod
    def passes(self) -> int:
        """How often a network segments each scan: so many times the time of one."""

    @abstractmethod
    def predict_passes(
        self, volumes: Sequence[Volume], calibrated: bool = False
    ) -> Iterator[Tensor]:
        """The probabilities of each pass, (classes, X, Y, Z) on the grid of the channels.

        Args:
            volumes: the channels of a scan.
            calibrated: by what each model's card has for it.

        Raises:
            DataError: a channel cannot be used.
        """

    @abstractmethod
    def with_views(self, kind: ViewKind) -> ScanModel:
        """The same model, whose networks see each scan from several sides (see `views_of`).

        Raises:
            ConfigError: a network cannot segment mirrored scans.
        """

    @kept_caller_state()
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

    def segment(self, volumes: Sequence[Volume], sure: bool | None = None) -> Segmentation:
        """Segments the channels of a scan that has been read.

        Args:
            volumes: the channels.
            sure: measure how sure the model is; None is where the card can foretell Dice from it.

        Raises:
            DataError: a channel cannot be used.
        """
        card, voxel_mm3 = self.card, math.prod(volumes[0].spacing_mm)
        sums = SurenessSums() if sure else None
        if sure is None and card.quality:
            sums = SurenessSums(card.quality.temperature)
        classes = card.postprocessing.apply(self._classes(volumes, sums), card.classes, voxel_mm3)
        # Part by part, since NumPy makes eight bytes of each index; "clip" takes half the time.
        parts = np.array_split(classes, max(classes.size // _INDICES, 1))
        return Segmentation(
            labels=np.concatenate([np.take(self._values, part, mode="clip") for part in parts]),
            label_values={name: card.label_values[name] for name in card.classes},
            volumes_mm3={
                name: np.count_nonzero(classes == number) * voxel_mm3
                for number, name in enumerate(card.classes[1:], start=1)
            },
            channels=tuple(volumes),
            card=card,
            predict_probabilities=lambda: self.mean_probabilities(volumes, True).numpy(),
            sureness=sums.sureness() if sums else (),
        )

    def predict_probabilities(self, channels: Sequence[VolumeRef]) -> tuple[Tensor, Volume]:
        """What `deciding_probabilities` gives for the files of a scan, and its first channel.

        Raises:
            DataError: as `predict`.
        """
        volumes = read_channels(list(channels), self.card.in_channels)
        return self.deciding_probabilities(volumes), volumes[0]

    def deciding_probabilities(self, volumes: Sequence[Volume]) -> Tensor:
        """What decides on labels, (classes, X, Y, Z): probabilities before calibration.

        Where post-processing changes a voxel, its class has 1.

        Raises:
            DataError: a channel cannot be used.
        """
        found, card = self.mean_probabilities(volumes), self.card
        if card.postprocessing:
            before = found.argmax(dim=0).to(torch.uint8).numpy()
            voxel_mm3 = math.prod(volumes[0].spacing_mm)
            after = card.postprocessing.apply(before, card.classes, voxel_mm3)
            changed = before != after
            found[:, torch.from_numpy(changed)] = torch.eye(len(found))[
                :, torch.from_numpy(after[changed]).long()
            ]
        return found

    def mean_probabilities(self, volumes: Sequence[Volume], calibrated: bool = False) -> Tensor:
        """The mean over all passes, (classes, X, Y, Z); see `predict_passes`.

        Raises:
            DataError: a channel cannot be used.
        """
        passes = self.predict_passes(volumes, calibrated)
        total = next(passes)
        for one in passes:
            total += one
        return total / self.passes if self.passes > 1 else total

    def _classes(
        self, volumes: Sequence[Volume], sums: SurenessSums | None
    ) -> npt.NDArray[np.uint8]:
        """Class indices, (X, Y, Z); `sums` gets how sure they are."""
        probabilities = self.mean_probabilities(volumes)
        if sums:
            sums.start()
            sums.add(probabilities.clamp_min(1e-12).log())
        found: Tensor = probabilities.argmax(dim=0).to(torch.uint8)
        return found.numpy()

    @cached_property
    def _values(self) -> npt.NDArray[Any]:
        """The label value of each class, in the smallest type that holds all."""
        values = [self.card.label_values[name] for name in self.card.classes]
        smallest = np.result_type(np.uint8, *(np.min_scalar_type(value) for value in values))
        return np.array(values, dtype=smallest)
