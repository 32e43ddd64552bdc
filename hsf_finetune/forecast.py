"""What a run is going to take in memory and time, and what to change where it does not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice

import psutil

from hsf_finetune import terminal
from hsf_finetune.data.datamodule import CasesDataModule
from hsf_finetune.data.splits import Split
from hsf_finetune.dry_run import Clock, Cost, DryRun, Load
from hsf_finetune.files import write_json
from hsf_finetune.padding import padded_shape
from hsf_finetune.run_folder import RunFolder
from hsf_finetune.schedule.schedule import Stage
from hsf_finetune.sizing import (
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
from hsf_finetune.workload import Triple, Workload, workload

_PATIENCE_S = 40.0
"""Longest that dry steps at full size may take; a smaller size is extrapolated otherwise."""
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
    divisor = dry.anatomy.divisor
    patch = padded_shape(settings.patch_vox, divisor)
    work = workload(split, settings, patch, settings.batch_size, divisor)
    base = psutil.Process().memory_info().rss
    free = host_free(base)
    appetite = measure_appetite(dry, work)
    stages = _distinct(dry.schedule.stages)
    voxels = work.batch * math.prod(work.typical_vox)
    room = device_free() if appetite.on_device else free
    most = appetite.bytes(work.batch, work.largest_vox)
    slow = appetite.voxel_s * voxels * 4 * len(stages) > _PATIENCE_S
    extrapolated = slow or lacks(most, room)
    load = Load(work.batch, work.typical_vox, work.volume_vox)
    if extrapolated:
        small = half(work.typical_vox, divisor)
        load = Load(1, small, _smaller(work.volume_vox, small))
    costs = {key: dry.measure(index, load) for key, index in stages.items()}
    ratio = voxels / (load.batch * math.prod(load.patch_vox))
    volumes = work.volumes * math.prod(work.volume_vox) / math.prod(load.volume_vox)
    loading = _loading_s(data, dry.clock) if data is not None else 0.0
    every = dry.settings.lightning.check_val_every_n_epoch
    times = tuple(
        StageTime(
            dry.schedule.first_epoch(index),
            stage.length,
            work.batches * (costs[_key(stage)].step_s * ratio + loading)
            + volumes * costs[_key(stage)].validation_s / every
            + costs[_key(stage)].epoch_s,
        )
        for index, stage in enumerate(dry.schedule.stages)
    )
    scoring = 16.0 * len(dry.card.classes) * work.largest_volume
    grown = _grown([*costs.values()], appetite, work, load, extrapolated, base)
    cache = 0.0 if data is not None else cache_bytes(dry.cohort, dry.settings)
    host, device = base + cache + max(grown, scoring), None
    if appetite.on_device:
        device = (
            max(most, *(cost.device_bytes for cost in costs.values()))
            if extrapolated
            else max(cost.device_bytes for cost in costs.values())
        )
        host = max(*(cost.host_bytes for cost in costs.values()), base) + cache + scoring
    lacking = lacks(host, free) or (device is not None and lacks(device, room))
    return Forecast(
        patch,
        work.batch,
        int(host),
        free,
        None if device is None else int(device),
        room if appetite.on_device else None,
        times,
        extrapolated,
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
    with terminal.progress("a few dry steps"):
        found = forecast(dry, split, data)
    for line in found.lines():
        terminal.say(line)
    if run is not None:
        kept = {"patch_vox": sizes.patch_vox, "batch_size": sizes.batch_size}
        write_json(run.file(FORECAST_FILE), {**asdict(found), "seconds": found.seconds, **kept})


# -------------------------------------------------------------------- internals
def _key(stage: Stage) -> tuple[frozenset[str], str | None, float]:
    return (frozenset(stage.rates), stage.augmentation, stage.augmentation_strength)


def _distinct(stages: Sequence[Stage]) -> dict[tuple[frozenset[str], str | None, float], int]:
    """One stage, by its number, of each kind that takes another time."""
    found: dict[tuple[frozenset[str], str | None, float], int] = {}
    for index, stage in enumerate(stages):
        found.setdefault(_key(stage), index)
    return found


def _grown(
    costs: Sequence[Cost],
    appetite: Appetite,
    work: Workload,
    load: Load,
    extrapolated: bool,
    base: int,
) -> float:
    """By how much the process is to grow in training."""
    most = appetite.bytes(work.batch, work.largest_vox) - base
    if extrapolated:
        return most
    seen = max(cost.host_bytes for cost in costs) - base
    # The largest batch may be larger than the one that was tried.
    more = work.batch * (math.prod(work.largest_vox) - math.prod(load.patch_vox))
    return float(seen + appetite.voxel_bytes * more)


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
