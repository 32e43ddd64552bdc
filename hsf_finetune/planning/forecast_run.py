"""The forecast of a run, from a few dry steps of each of its stages."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import psutil

from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning.auto_sizes import (
    FORECAST_FILE,
    StepCost,
    cache_bytes,
    free_memory,
    half_of,
    measure_step_cost,
    smaller_patches,
)
from hsf_finetune.planning.dry_run import Clock, DryRunCost, DryVolumes, measure_stage
from hsf_finetune.planning.epoch_volumes import EpochVolumes, count_epoch_volumes
from hsf_finetune.planning.forecast import Forecast, StageTime
from hsf_finetune.planning.memory import fits_into, free_host_bytes
from hsf_finetune.planning.setup import Setup
from hsf_finetune.schedule.stages import Stage
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.run_folder import RunFolder
from hsf_finetune.training.trainer import chosen_precision

_PATIENCE_S = 40.0
"""Longest that dry steps at full size may take; a smaller size is extrapolated otherwise."""
_StageKind = tuple[frozenset[str], str | None, float]
"""Of a stage: what trains in it, and how it is augmented."""
_LOADED_BATCHES = 3
"""Batches that are loaded to see how long it takes."""


def make_forecast(
    setup: Setup, data: CasesDataModule | None = None, clock: Clock = time.perf_counter
) -> Forecast:
    """What a run takes, from dry steps of each of its stages.

    The steps are those of the real trainer, on volumes of noise of the right size and on a
    copy of the network. Where they would be too large for the memory, or take too long,
    smaller ones are extrapolated along the number of voxels.

    Args:
        setup: of the run, from `with_sizes`.
        data: the cases, after they were read, to see how long a batch takes to load; None
            counts no time for that, and room for the cases that are yet to be read.
        clock: seconds, of which differences are taken.

    Raises:
        DataError: a header cannot be read.
    """
    settings = setup.settings.datasets
    assert settings.patch_vox != "auto"
    assert settings.batch_size != "auto"
    patch = padded_shape(settings.patch_vox, setup.anatomy.divisor)
    volumes = count_epoch_volumes(setup, patch, settings.batch_size)
    base = psutil.Process().memory_info().rss
    free = free_host_bytes(base)
    cost = measure_step_cost(setup, volumes)
    room = free_memory(cost) if cost.on_device else free
    steps = _measure_stages(setup, volumes, cost, room, clock)
    loading = _loading_s(data, clock) if data is not None else 0.0
    every = setup.settings.lightning.check_val_every_n_epoch
    first = setup.schedule.first_epoch
    times = tuple(
        StageTime(first(index), stage.length, steps.epoch_s(stage, loading, every))
        for index, stage in enumerate(setup.schedule.stages)
    )
    cache = 0.0 if data is not None else cache_bytes(setup)
    host = steps.host_bytes(base, len(setup.card.classes)) + cache
    device = steps.device_bytes() if cost.on_device else None
    fits = fits_into(host, free) and (device is None or fits_into(device, room))
    return Forecast(
        steps.dry.patch_vox,
        steps.dry.batch,
        int(host),
        free,
        None if device is None else int(device),
        room if cost.on_device else None,
        times,
        steps.extrapolated,
        any(stage.patience_epochs is not None for stage in setup.schedule.stages),
        () if fits else tuple(_remedies(setup, volumes, cost, room)),
    )


def add_forecast(setup: Setup, data: CasesDataModule | None = None) -> Setup:
    """The setup with its forecast, unless none can be made; arguments as for `make_forecast`."""
    if any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        # A trainer of one device cannot be made among several processes.
        return setup
    with console.progress("a few dry steps"):
        return replace(setup, forecast=make_forecast(setup, data))


def write_forecast(setup: Setup, run: RunFolder, data: CasesDataModule) -> None:
    """Prints what a run takes, where the settings want that, and writes it to its folder."""
    datasets, engine, content = setup.settings.datasets, setup.settings.lightning, dict[str, Any]()
    forecast = add_forecast(setup, data).forecast if engine.forecast else None
    if forecast is not None:
        for line in forecast.lines():
            console.say(line)
        content = {**asdict(forecast), "seconds": forecast.seconds}
    # A resumed run has to find what `auto` stands for.
    content |= {"patch_vox": datasets.patch_vox, "batch_size": datasets.batch_size}
    content |= {"precision": chosen_precision(engine)}
    write_json(run.file(FORECAST_FILE), content)


@dataclass(frozen=True)
class _MeasuredStages:
    """What dry steps took, and what that says of the run's own.

    Args:
        volumes: of an epoch of the run.
        dry: of the dry steps.
        costs: of one stage of each kind.
        step: memory by the number of voxels.
        extrapolated: whether the dry steps were smaller than those of the run.
    """

    volumes: EpochVolumes
    dry: DryVolumes
    costs: Mapping[_StageKind, DryRunCost]
    step: StepCost
    extrapolated: bool

    def epoch_s(self, stage: Stage, loading_s: float, every: int) -> float:
        """Seconds of an epoch of this stage, with a validation in one of every so many."""
        volumes, dry, cost = self.volumes, self.dry, self.costs[_kind_of(stage)]
        trained = volumes.batch * math.prod(volumes.typical_vox)
        ratio = trained / (dry.batch * math.prod(dry.patch_vox))
        validated = volumes.volumes * math.prod(volumes.volume_vox) / math.prod(dry.volume_vox)
        steps = volumes.batches * (cost.step_s * ratio + loading_s)
        return steps + validated * cost.validation_s / every + cost.epoch_s

    def host_bytes(self, base: int, classes: int) -> float:
        """Most memory of the process, but for cached cases; `base` is what it had before."""
        scoring = 16.0 * classes * self.volumes.largest_volume
        seen = max(cost.host_bytes for cost in self.costs.values())
        if self.step.on_device:
            return max(seen, base) + scoring
        batch = self.volumes.batch
        if self.extrapolated:
            grown = self.step.bytes(batch, self.volumes.largest_vox) - base
        else:
            # The largest batch may be larger than the one that was tried.
            larger = math.prod(self.volumes.largest_vox) - math.prod(self.dry.patch_vox)
            grown = seen - base + self.step.voxel_bytes * batch * larger
        return base + max(grown, scoring)

    def device_bytes(self) -> float:
        """Most memory of the GPU."""
        seen = max(cost.device_bytes for cost in self.costs.values())
        most = self.step.bytes(self.volumes.batch, self.volumes.largest_vox)
        return max(most, seen) if self.extrapolated else seen


def _measure_stages(
    setup: Setup, volumes: EpochVolumes, cost: StepCost, room: int, clock: Clock
) -> _MeasuredStages:
    """Dry steps, as large as those of the run where that takes neither too long nor too much."""
    stages: dict[_StageKind, int] = {}
    for index, stage in enumerate(setup.schedule.stages):
        stages.setdefault(_kind_of(stage), index)
    dry = DryVolumes(volumes.batch, volumes.typical_vox, volumes.volume_vox)
    seconds = cost.voxel_s * volumes.batch * math.prod(volumes.typical_vox) * 4 * len(stages)
    fits = fits_into(cost.bytes(volumes.batch, volumes.largest_vox), room)
    smaller = seconds > _PATIENCE_S or not fits
    if smaller:
        small = half_of(volumes.typical_vox, setup.anatomy.divisor)
        dry = DryVolumes(1, small, min(volumes.volume_vox, small, key=math.prod))
    costs = {
        kind: measure_stage(setup.job, index, dry, clock=clock) for kind, index in stages.items()
    }
    return _MeasuredStages(volumes, dry, costs, cost, smaller)


def _kind_of(stage: Stage) -> _StageKind:
    return (frozenset(stage.rates), stage.augmentation, stage.augmentation_strength)


def _loading_s(data: CasesDataModule, clock: Clock) -> float:
    """Time that a batch takes to load, as far as steps wait for it."""
    if data.settings.num_workers:
        return 0.0
    batches = islice(iter(data.train_dataloader()), _LOADED_BATCHES)
    begin = clock()
    count = sum(1 for _ in batches)
    return (clock() - begin) / max(count, 1)


def _remedies(
    setup: Setup, volumes: EpochVolumes, cost: StepCost, room: int
) -> Iterator[tuple[str, str]]:
    """Overrides that make it fit, and what they do."""
    accumulate = setup.settings.lightning.accumulate_grad_batches
    for batch in range(volumes.batch - 1, 0, -1):
        if volumes.batch % batch == 0 and fits_into(cost.bytes(batch, volumes.largest_vox), room):
            more = accumulate * volumes.batch // batch
            yield (
                f"datasets.batch_size={batch} lightning.accumulate_grad_batches={more}",
                "the same steps, in smaller parts",
            )
            break
    for patch in smaller_patches(volumes.largest_vox, setup.anatomy.divisor):
        if fits_into(cost.bytes(volumes.batch, patch), room):
            text = ",".join(map(str, patch))
            yield (f"'datasets.patch_vox=[{text}]'", "smaller patches")
            break
    if getattr(setup.settings.models, "use_checkpoint", None) is False:
        yield ("models.use_checkpoint=true", "attention computed twice, in less memory")
    if setup.settings.datasets.cache in ("auto", "memory") and not cost.on_device:
        yield ("datasets.cache=disk", "prepared cases on disk, not in memory")
    yield ("datasets.patch_vox=auto datasets.batch_size=auto", "let it find a size that fits")
