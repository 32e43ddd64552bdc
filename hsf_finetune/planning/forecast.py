"""What a run is going to take in memory and time, and what to change where it does not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice

import psutil

from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.data.splits import Split
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning.dry_run import Clock, Cost, DryRun, Load
from hsf_finetune.planning.memory import (
    FORECAST_FILE,
    Appetite,
    cache_bytes,
    device_free,
    gigabytes,
    half,
    host_free,
    lacks,
    measure_appetite,
    remedies,
)
from hsf_finetune.planning.workload import Triple, Workload, workload
from hsf_finetune.schedule.stages import Stage
from hsf_finetune.system import console
from hsf_finetune.system.files import write_json
from hsf_finetune.system.run_folder import RunFolder

_PATIENCE_S = 40.0
"""Longest that dry steps at full size may take; a smaller size is extrapolated otherwise."""
_Kind = tuple[frozenset[str], str | None, float]
"""Of a stage: what trains in it, and how it is augmented."""
_LOADED = 3
"""Batches that are loaded to see how long it takes."""


@dataclass(frozen=True)
class StageTime:
    """How long the epochs of a stage take.

    Args:
        first_epoch: of the stage.
        epochs: in it, at the most.
        seconds: of each, validation included.
    """

    first_epoch: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a run takes; the host's figures are of the whole process.

    Args:
        patch_vox: of training.
        batch_size: of training.
        host_bytes: most memory of the process.
        host_free_bytes: memory that it may come to have.
        device_bytes: most memory of the GPU; None without one.
        device_free_bytes: of it that is free; None likewise.
        stages: how long their epochs take.
        extrapolated: whether the dry steps were smaller than those of the run.
        remedies: overrides that make it fit, each with what it does; none where it does.
    """

    patch_vox: Triple
    batch_size: int
    host_bytes: int
    host_free_bytes: int
    device_bytes: int | None
    device_free_bytes: int | None
    stages: tuple[StageTime, ...]
    extrapolated: bool
    remedies: tuple[tuple[str, str], ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return not lacks(self.host_bytes, self.host_free_bytes) and not lacks(
            self.device_bytes or 0, self.device_free_bytes
        )

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return sum(stage.epochs * stage.seconds for stage in self.stages)

    def lines(self) -> list[str]:
        """The forecast for a terminal."""
        memory = f"{gigabytes(self.host_bytes)} of memory (of {gigabytes(self.host_free_bytes)})"
        if self.device_bytes is not None and self.device_free_bytes is not None:
            memory = f"{gigabytes(self.device_bytes)} of GPU memory (of {gigabytes(self.device_free_bytes)}), {memory}"
        times = list(dict.fromkeys(f"{stage.seconds:.3g} s" for stage in self.stages))
        spread = times[0] if len(times) == 1 else f"{times[0]} (first stage) to {times[-1]} (last)"
        how = "extrapolated from smaller dry steps" if self.extrapolated else "from dry steps"
        size = "x".join(map(str, self.patch_vox))
        found = [
            f"forecast, {how} of {self.batch_size} x {size} voxels: {memory}",
            f"  an epoch takes about {spread}, {self._epochs} epochs about "
            f"{timedelta(seconds=round(self.seconds))} (a plateau may end them earlier, other "
            "programs make them longer)",
        ]
        if not self.fits:
            found.append("  warning: this is more memory than there is. It may fit with")
            found += [f"    {override}  ({why})" for override, why in self.remedies]
        return found

    @property
    def _epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)


def forecast(dry: DryRun, split: Split, data: CasesDataModule | None = None) -> Forecast:
    """What a run takes, from dry steps of each of its stages.

    The steps are those of the real trainer, on volumes of noise of the right size and on a
    copy of the network. Where they would be too large for the memory, or take too long,
    smaller ones are extrapolated along the number of voxels.

    Args:
        dry: the run.
        split: who trains and who validates.
        data: the cases, after they were read, to see how long a batch takes to load; None
            counts no time for that, and room for the cases that are yet to be read.

    Raises:
        DataError: a header cannot be read.
    """
    settings = dry.settings.datasets
    assert settings.patch_vox != "auto"
    assert settings.batch_size != "auto"
    patch = padded_shape(settings.patch_vox, dry.anatomy.divisor)
    work = workload(split, settings, patch, settings.batch_size, dry.anatomy.divisor)
    base = psutil.Process().memory_info().rss
    free = host_free(base)
    appetite = measure_appetite(dry, work)
    room = device_free() if appetite.on_device else free
    steps = _dry_steps(dry, work, appetite, base, room)
    loading = _loading_s(data, dry.clock) if data is not None else 0.0
    every = dry.settings.lightning.check_val_every_n_epoch
    times = tuple(
        StageTime(
            dry.schedule.first_epoch(index), stage.length, steps.epoch_s(stage, loading, every)
        )
        for index, stage in enumerate(dry.schedule.stages)
    )
    cache = 0.0 if data is not None else cache_bytes(dry.cohort, dry.settings)
    host = steps.host_bytes(len(dry.card.classes)) + cache
    device = steps.device_bytes() if appetite.on_device else None
    lacking = lacks(host, free) or (device is not None and lacks(device, room))
    return Forecast(
        patch,
        work.batch,
        int(host),
        free,
        None if device is None else int(device),
        room if appetite.on_device else None,
        times,
        steps.extrapolated,
        tuple(remedies(dry, work, appetite, room)) if lacking else (),
    )


def show_forecast(
    dry: DryRun,
    split: Split,
    run: RunFolder | None = None,
    data: CasesDataModule | None = None,
) -> None:
    """Says what a run takes, and writes it to `forecast.json` of its folder.

    Args:
        dry: the run.
        split: who trains and who validates.
        run: its folder; None where there is none, as in `hsf-finetune plan`.
        data: the cases, after they were read.
    """
    sizes = dry.settings.datasets
    if run is not None and not dry.settings.lightning.forecast:
        # What `auto` came to has to be found again by a resumed run.
        write_json(
            run.file(FORECAST_FILE), {"patch_vox": sizes.patch_vox, "batch_size": sizes.batch_size}
        )
        return
    if any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        # A trainer of one device cannot be made among several processes.
        return
    with console.progress("a few dry steps"):
        found = forecast(dry, split, data)
    for line in found.lines():
        console.say(line)
    if run is not None:
        kept = {"patch_vox": sizes.patch_vox, "batch_size": sizes.batch_size}
        write_json(run.file(FORECAST_FILE), {**asdict(found), "seconds": found.seconds, **kept})


# -------------------------------------------------------------------- internals
@dataclass(frozen=True)
class _DrySteps:
    """What dry steps took, and what that says of the run's own.

    Args:
        work: of the run.
        load: of the dry steps.
        costs: of one stage of each kind.
        appetite: memory by the number of voxels.
        base_bytes: memory of the process before them.
        extrapolated: whether they were smaller than those of the run.
    """

    work: Workload
    load: Load
    costs: Mapping[_Kind, Cost]
    appetite: Appetite
    base_bytes: int
    extrapolated: bool

    def epoch_s(self, stage: Stage, loading_s: float, every: int) -> float:
        """Seconds of an epoch of this stage, with a validation in one of every so many."""
        work, load, cost = self.work, self.load, self.costs[_key(stage)]
        ratio = work.batch * math.prod(work.typical_vox) / (load.batch * math.prod(load.patch_vox))
        volumes = work.volumes * math.prod(work.volume_vox) / math.prod(load.volume_vox)
        steps = work.batches * (cost.step_s * ratio + loading_s)
        return steps + volumes * cost.validation_s / every + cost.epoch_s

    def host_bytes(self, classes: int) -> float:
        """Most memory of the process, but for cached cases."""
        scoring = 16.0 * classes * self.work.largest_volume
        if self.appetite.on_device:
            seen = max(cost.host_bytes for cost in self.costs.values())
            return max(seen, self.base_bytes) + scoring
        return self.base_bytes + max(self._grown(), scoring)

    def device_bytes(self) -> float:
        """Most memory of the GPU."""
        seen = max(cost.device_bytes for cost in self.costs.values())
        most = self.appetite.bytes(self.work.batch, self.work.largest_vox)
        return max(most, seen) if self.extrapolated else seen

    def _grown(self) -> float:
        """By how much the process is to grow in training."""
        work = self.work
        if self.extrapolated:
            return self.appetite.bytes(work.batch, work.largest_vox) - self.base_bytes
        seen = max(cost.host_bytes for cost in self.costs.values()) - self.base_bytes
        # The largest batch may be larger than the one that was tried.
        more = work.batch * (math.prod(work.largest_vox) - math.prod(self.load.patch_vox))
        return float(seen + self.appetite.voxel_bytes * more)


def _dry_steps(dry: DryRun, work: Workload, appetite: Appetite, base: int, room: int) -> _DrySteps:
    """Makes them, as large as those of the run where that takes neither too long nor too much."""
    stages = _distinct(dry.schedule.stages)
    load = Load(work.batch, work.typical_vox, work.volume_vox)
    seconds = appetite.voxel_s * work.batch * math.prod(work.typical_vox) * 4 * len(stages)
    smaller = seconds > _PATIENCE_S or lacks(appetite.bytes(work.batch, work.largest_vox), room)
    if smaller:
        small = half(work.typical_vox, dry.anatomy.divisor)
        load = Load(1, small, _smaller(work.volume_vox, small))
    costs = {kind: dry.measure(index, load) for kind, index in stages.items()}
    return _DrySteps(work, load, costs, appetite, base, smaller)


def _key(stage: Stage) -> _Kind:
    return (frozenset(stage.rates), stage.augmentation, stage.augmentation_strength)


def _distinct(stages: Sequence[Stage]) -> dict[_Kind, int]:
    """One stage, by its number, of each kind that takes another time."""
    found: dict[_Kind, int] = {}
    for index, stage in enumerate(stages):
        found.setdefault(_key(stage), index)
    return found


def _smaller(a: Triple, b: Triple) -> Triple:
    return min(a, b, key=math.prod)


def _loading_s(data: CasesDataModule, clock: Clock) -> float:
    """Time that a batch takes to load, as far as steps wait for it."""
    if data.settings.num_workers:
        return 0.0
    batches = islice(iter(data.train_dataloader()), _LOADED)
    begin, count = clock(), 0
    for _ in batches:
        count += 1
    return (clock() - begin) / max(count, 1)
