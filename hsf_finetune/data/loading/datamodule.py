"""Loaders for training and validation; the same seed and epoch give the same batches."""

from __future__ import annotations

import gc
import os
from functools import cached_property, partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hsf_finetune.config.settings import (
    HSF_PREPROCESSING,
    AugmentationSettings,
    DatasetsSettings,
    Preprocessing,
)
from hsf_finetune.data.augment.flips import FlipPlan, plan_flips, weigh_sides
from hsf_finetune.data.augment.torchio_hsf import HsfPipeline
from hsf_finetune.data.census import Census, take_census
from hsf_finetune.data.loading.batches import (
    Augment,
    BatchItem,
    TrainingCases,
    WholeCases,
    stack_items,
)
from hsf_finetune.data.loading.epoch_sampler import EpochSampler, choose_draw_weights
from hsf_finetune.data.loading.sample_store import Progress, SampleStore
from hsf_finetune.data.preprocessing.resampling import Triple
from hsf_finetune.data.splits import Split
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.system.errors import ConfigError


class CasesDataModule(L.LightningDataModule):
    """Loaders over the two sides of a split.

    Args:
        split: which cases train and which validate.
        settings: the `datasets` group.
        divisor: sizes the network needs multiples of, along (x, y, z).
        seed: of the run.
        augmentation: which volumes of the training cases get; None is none.
        preprocessing: of the cases.

    Raises:
        ConfigError: `batch_size` or `patch_vox` is still `auto`.
    """

    def __init__(
        self,
        split: Split,
        settings: DatasetsSettings,
        divisor: Triple,
        seed: int,
        augmentation: AugmentationSettings | None = None,
        preprocessing: Preprocessing = HSF_PREPROCESSING,
    ) -> None:
        super().__init__()
        if settings.batch_size == "auto" or settings.patch_vox == "auto":
            raise ConfigError("batch_size and patch_vox of auto are decided before data are read")
        self.split = split
        self.settings = settings
        self.seed = seed
        self.batch_size = settings.batch_size
        self.patch_vox = padded_shape(settings.patch_vox, divisor)
        self.draws = choose_draw_weights(split.train, settings.datasets)
        self.augmentation = augmentation or AugmentationSettings(pipeline="none")
        cases = [*dict.fromkeys((*split.train, *split.validation))]
        self._store = SampleStore(cases, settings, preprocessing)
        self._collate = partial(
            stack_items,
            divisor=divisor,
            padding=preprocessing.padding,
            mode=preprocessing.padding_mode,
        )
        is_padded = preprocessing.padded_size == "window"
        self._least = self.patch_vox if is_padded else (1, 1, 1)

    def read(self, progress: Progress | None = None) -> str:
        """Prepares the `SampleStore`; returns where cases are kept: `memory`, `disk` or `off`."""
        self._store.prepare(progress)
        return self._store.mode

    def take_censuses(self) -> dict[str, Census]:
        """The label census of either side of the split; after `read`."""
        space = self.split.train[0].protocol.space
        counted = {
            side: [(case, self._store.places(case).voxels) for case in self.split.side(side)]
            for side in ("train", "validation")
        }
        return {side: take_census(cases, space) for side, cases in counted.items()}

    @cached_property
    def flips(self) -> FlipPlan:
        """Whether training flips, by the class names and the places of labels; after `read`."""
        space = self.split.train[0].protocol.space
        places = (self._store.places(case) for case in self.split.train)
        return plan_flips(self.augmentation, space, weigh_sides(places, space))

    def steps_per_epoch(self, world_size: int, accumulate: int) -> int:
        """Optimiser steps of an epoch, with `accumulate` batches per step and process."""
        batches = -(-len(self._sampler(0, world_size)) // self.batch_size)
        return -(-batches // accumulate)

    def train_dataloader(self) -> DataLoader[BatchItem]:
        """Shuffled batches of an epoch."""
        share = self.settings.foreground_share
        augment: Augment | None = None
        if self.augmentation.pipeline == "torchio_hsf":
            augment = HsfPipeline(self.flips.allowed, self.flips.partners)
        dataset = TrainingCases(self._store, self.split.train, self.patch_vox, share, augment)
        sampler = self._sampler(*self._rank_and_size())
        if self.trainer:  # loader processes draw before Lightning says which epoch is resumed
            done: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(done.processed)
        return self._loader(dataset, self.batch_size, sampler, self._least)

    def val_dataloader(self) -> DataLoader[BatchItem]:
        """Whole validation volumes, one by one, divided among the processes.

        The first ones are repeated at the end, so that all processes have equally many: with
        fewer than others, or none, one would not take part in what all do together.
        """
        rank, world_size = self._rank_and_size()
        dataset = WholeCases(self._store, self.split.validation)
        rounds = -(-len(dataset) // world_size)
        mine = [n % len(dataset) for n in range(rank, rounds * world_size, world_size)]
        return self._loader(dataset, 1, mine)

    def _sampler(self, rank: int, world_size: int) -> EpochSampler:
        weights = [self.draws.by_dataset[case.dataset] for case in self.split.train]
        k_sample, replace = self.settings.k_sample, self.settings.replace
        return EpochSampler(weights, k_sample, replace, self.seed, rank, world_size)

    def _rank_and_size(self) -> tuple[int, int]:
        """Number of this process, and of all processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self,
        dataset: Dataset[BatchItem],
        batch_size: int,
        sampler: Sampler[Any] | list[int],
        least: Triple = (1, 1, 1),
    ) -> DataLoader[BatchItem]:
        workers = min(self.settings.num_workers, os.cpu_count() or 1)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=partial(self._collate, least=least),
            pin_memory=self.settings.pin_memory and torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=_keep_inherited,
        )


def _keep_inherited(worker: int) -> None:
    """Never collects what a loader process, a fork, has from the process that trains.

    The end of a model of OpenVINO waits for its threads, which a fork has not.
    """
    gc.freeze()
