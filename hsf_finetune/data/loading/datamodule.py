"""Batches for training and validation, the same ones for the same seed and epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset, Sampler

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.census import Census, take_census
from hsf_finetune.data.loading.draws import Draw, EpochSampler, draw_weights
from hsf_finetune.data.loading.patches import Triple, patch_corner
from hsf_finetune.data.loading.sample_store import Progress, SampleStore, SampleView
from hsf_finetune.data.preprocessing.grid import Sample
from hsf_finetune.data.splits import Split
from hsf_finetune.labels.classes import BACKGROUND_ROW
from hsf_finetune.networks.padding import pad_to, padded_shape
from hsf_finetune.system.errors import ConfigError

Augment = Callable[
    [Tensor, Tensor, Tensor, tuple[float, float, float], int], tuple[Tensor, Tensor, Tensor]
]


class Batch(TypedDict):
    """What a step works on.

    image: (B, C, X, Y, Z) float32; label: label rows (B, X, Y, Z) uint8;
    allowed: (B, rows, classes) bool, the label rows' sets of classes, padded
    with empty rows; spacing: voxel sizes (B, 3) in mm; case: names; seed: for
    everything random about the batch.
    """

    image: Tensor
    label: Tensor
    allowed: Tensor
    spacing: Tensor
    case: list[str]
    seed: int


@dataclass(frozen=True)
class Item:
    """One sample on its way into a batch.

    Args:
        sample: image and label rows.
        allowed: the label rows' sets of classes, (rows, classes) bool.
        case: name of the case.
        seed: for everything random about the sample.
    """

    sample: Sample
    allowed: Tensor
    case: str
    seed: int = 0


class TrainingCases(Dataset[Item]):
    """Training volumes, or patches of those that are larger than a patch.

    Args:
        store: preprocessed cases.
        patch_vox: largest size of what is returned.
        foreground_share: share of patches centred on a labelled voxel.
        augment: per-volume augmentation `(image, label, allowed, spacing_mm, seed)`, if any.
    """

    def __init__(
        self,
        store: SampleView,
        patch_vox: Triple,
        foreground_share: float,
        augment: Augment | None,
    ) -> None:
        self._store = store
        self._patch = patch_vox
        self._foreground_share = foreground_share
        self._augment = augment

    def __getitem__(self, draw: Draw) -> Item:
        """A sample of a case, cut to a patch if it is larger, and its case."""
        case = self._store.case(draw.index)
        sample = self._store.sample(draw.index)
        foreground, stated = (
            torch.from_numpy(rows)
            for rows in (case.protocol.foreground_rows, case.protocol.stated_rows)
        )
        corner = patch_corner(
            sample.label, self._patch, self._foreground_share, foreground, stated, draw.seed
        )
        cut = (slice(None), *(slice(a, a + n) for a, n in zip(corner, self._patch, strict=True)))
        image, label = sample.image[cut], sample.label[cut[1:]]
        allowed = torch.from_numpy(case.protocol.matrix)
        if self._augment is not None:
            image, label, allowed = self._augment(
                image, label, allowed, sample.spacing_mm, draw.seed
            )
        return Item(Sample(image, label, sample.spacing_mm), allowed, case.name, draw.seed)


class WholeCases(Dataset[Item]):
    """Whole volumes, unchanged."""

    def __init__(self, store: SampleView) -> None:
        self._store = store

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._store)

    def __getitem__(self, index: int) -> Item:
        """A sample and its case."""
        case = self._store.case(index)
        return Item(self._store.sample(index), torch.from_numpy(case.protocol.matrix), case.name)


class Collate:
    """Stacks samples, padded at their ends to a size that the network can halve.

    Padded voxels are background in the label and 0 (the mean) in the image.

    Args:
        divisor: sizes must be multiples of these.
    """

    def __init__(self, divisor: Triple) -> None:
        self._divisor = divisor

    def __call__(self, items: Sequence[Item]) -> Batch:
        """The batch of these samples."""
        shapes = [item.sample.label.shape for item in items]
        shape = padded_shape([max(sizes) for sizes in zip(*shapes, strict=True)], self._divisor)
        matrices = [item.allowed for item in items]
        rows = max(len(m) for m in matrices)
        return Batch(
            image=torch.stack([pad_to(item.sample.image, shape, 0.0) for item in items]),
            label=torch.stack([pad_to(item.sample.label, shape, BACKGROUND_ROW) for item in items]),
            allowed=torch.stack([pad(m, (0, 0, 0, rows - len(m))) for m in matrices]),
            spacing=torch.tensor([item.sample.spacing_mm for item in items]),
            case=[item.case for item in items],
            seed=items[0].seed,
        )


class CasesDataModule(L.LightningDataModule):
    """Loaders over the two sides of a split.

    Args:
        split: who trains and who validates.
        settings: the `datasets` group.
        divisor: sizes the network needs multiples of.
        seed: of the run.
        augment: per-volume augmentation in the loader, if any.

    Raises:
        ConfigError: `batch_size` or `patch_vox` is still `auto`.
    """

    def __init__(
        self,
        split: Split,
        settings: DatasetsSettings,
        divisor: Triple,
        seed: int,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        self.split = split
        self.settings = settings
        self.seed = seed
        self._augment = augment
        self._collate = Collate(divisor)
        if settings.batch_size == "auto" or settings.patch_vox == "auto":
            raise ConfigError("batch_size and patch_vox of auto are decided before data are read")
        self.batch_size = settings.batch_size
        self.patch_vox = padded_shape(settings.patch_vox, divisor)
        self.window_vox = padded_shape(settings.window_vox, divisor)
        self.draws = draw_weights(split.train, settings.datasets)
        every = tuple(dict.fromkeys((*split.train, *split.validation)))
        self._store = SampleStore(every, settings)
        self._train = self._store.view(split.train)
        self._validation = self._store.view(split.validation)

    def read(self, progress: Progress | None = None) -> str:
        """Reads, checks and caches all cases; returns where they are kept."""
        self._store.prepare(progress)
        return self._store.mode

    def censuses(self) -> dict[str, Census]:
        """What supervises each class, on either side of the split; after `read`."""
        views = {"train": self._train, "validation": self._validation}
        space = self.split.train[0].protocol.space
        return {
            side: take_census([(view.case(n), view.row_voxels(n)) for n in range(len(view))], space)
            for side, view in views.items()
        }

    def steps_per_epoch(self, world_size: int, accumulate: int) -> int:
        """Optimiser steps of an epoch."""
        batches = -(-len(self._sampler(0, world_size)) // self.batch_size)
        return -(-batches // accumulate)

    def train_dataloader(self) -> DataLoader[Item]:
        """Shuffled batches of an epoch."""
        dataset = TrainingCases(
            self._train, self.patch_vox, self.settings.foreground_share, self._augment
        )
        rank, world_size = self._process()
        return self._loader(dataset, self.batch_size, self._sampler(rank, world_size))

    def val_dataloader(self) -> DataLoader[Item]:
        """Whole validation volumes, one by one, dealt out over the processes."""
        rank, world_size = self._process()
        mine = range(rank, len(self._validation), world_size)
        return self._loader(WholeCases(self._validation), 1, mine)

    def _sampler(self, rank: int, world_size: int) -> EpochSampler:
        return EpochSampler(
            len(self.split.train),
            self.settings.k_sample,
            self.settings.replace,
            self.seed,
            rank,
            world_size,
            [self.draws.of[case.dataset] for case in self.split.train],
        )

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self,
        dataset: Dataset[Item],
        batch_size: int,
        sampler: Sampler[Draw] | range,
    ) -> DataLoader[Item]:
        workers = min(self.settings.num_workers, os.cpu_count() or 1)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=self._collate,
            pin_memory=self.settings.pin_memory and torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )
