"""What a run is going to take in memory and time, and what to change where it does not fit."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import psutil
import torch

from hsf_finetune import screen
from hsf_finetune.data.cases import Cohort
from hsf_finetune.data.datamodule import CasesDataModule
from hsf_finetune.data.splits import Split
from hsf_finetune.data.store import sample_bytes
from hsf_finetune.dry_run import Clock, Cost, DryRun, Load
from hsf_finetune.errors import ConfigError
from hsf_finetune.files import write_json
from hsf_finetune.padding import padded_shape
from hsf_finetune.processes import follower
from hsf_finetune.run_folder import RunFolder
from hsf_finetune.schedule.schedule import Stage
from hsf_finetune.settings import Settings
from hsf_finetune.workload import Triple, Workload, largest_shape, workload

_FILE = "forecast.json"
_MOST_SHARE = 0.85
"""Share of the free memory that a run may be planned to take."""
_PATIENCE_S = 40.0
"""Longest that dry steps at full size may take; a smaller size is extrapolated otherwise."""
_LARGEST_PATCH = 128
_SMALLEST_PATCH = 32
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
        return not _lacks(self.host_bytes, self.host_free_bytes) and not _lacks(
            self.device_bytes or 0, self.device_free_bytes
        )

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return sum(stage.epochs * stage.seconds for stage in self.stages)

    def lines(self) -> list[str]:
        """The forecast for a terminal."""
        memory = f"{_gb(self.host_bytes)} of memory (of {_gb(self.host_free_bytes)})"
        if self.device_bytes is not None and self.device_free_bytes is not None:
            memory = f"{_gb(self.device_bytes)} of GPU memory (of {_gb(self.device_free_bytes)}), {memory}"
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


@dataclass(frozen=True)
class Appetite:
    """Memory and time of a step, as straight lines over the voxels of a batch.

    Args:
        fixed_bytes: at no voxels: weights, gradients, optimiser, libraries.
        voxel_bytes: per voxel of a batch.
        voxel_s: seconds per voxel.
        on_device: whether the memory is the GPU's.
    """

    fixed_bytes: float
    voxel_bytes: float
    voxel_s: float
    on_device: bool

    def bytes(self, batch: int, patch: Sequence[int]) -> float:
        """Memory for batches of patches of a size."""
        return self.fixed_bytes + self.voxel_bytes * batch * math.prod(patch)


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
    free = _host_free(base)
    appetite = measure_appetite(dry, work)
    stages = _distinct(dry.schedule.stages)
    voxels = work.batch * math.prod(work.typical_vox)
    room = _device_free() if appetite.on_device else free
    most = appetite.bytes(work.batch, work.largest_vox)
    slow = appetite.voxel_s * voxels * 4 * len(stages) > _PATIENCE_S
    extrapolated = slow or _lacks(most, room)
    load = Load(work.batch, work.typical_vox, work.volume_vox)
    if extrapolated:
        small = _half(work.typical_vox, divisor)
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
    cache = 0.0 if data is not None else _cache_bytes(dry.cohort, dry.settings)
    host, device = base + cache + max(grown, scoring), None
    if appetite.on_device:
        device = (
            max(most, *(cost.device_bytes for cost in costs.values()))
            if extrapolated
            else max(cost.device_bytes for cost in costs.values())
        )
        host = max(*(cost.host_bytes for cost in costs.values()), base) + cache + scoring
    lacking = _lacks(host, free) or (device is not None and _lacks(device, room))
    return Forecast(
        patch,
        work.batch,
        int(host),
        free,
        None if device is None else int(device),
        room if appetite.on_device else None,
        times,
        extrapolated,
        tuple(_remedies(dry, work, appetite, room)) if lacking else (),
    )


def decide_auto(dry: DryRun, split: Split) -> Settings:
    """The settings with `patch_vox: auto` and `batch_size: auto` decided.

    A patch is as large as the training volumes, up to 128 voxels along an axis, and shrinks
    along its longest axis until batches fit into 85 % of the free memory. A batch is two, as
    small batches of large patches are worth more than the opposite (Isensee et al., 2021),
    and one where not even small patches fit by twos.

    Args:
        dry: the run.
        split: who trains and who validates.

    Raises:
        ConfigError: nothing fits.
        DataError: a header cannot be read.
    """
    settings = dry.settings.datasets
    divisor = dry.anatomy.divisor
    if settings.patch_vox == "auto":
        whole = padded_shape(
            [min(n, _LARGEST_PATCH) for n in largest_shape(split, settings)], divisor
        )
    else:
        whole = padded_shape(settings.patch_vox, divisor)
    batches = [2, 1] if settings.batch_size == "auto" else [settings.batch_size]
    work = workload(split, settings, whole, batches[0], divisor)
    appetite = measure_appetite(dry, work)
    room = _device_free() if appetite.on_device else _host_free(psutil.Process().memory_info().rss)
    if not appetite.on_device:
        room -= int(_cache_bytes(dry.cohort, dry.settings))
    patches = [whole] if settings.patch_vox != "auto" else list(_shrinking(whole, divisor))
    for batch in batches:
        for patch in patches:
            if not _lacks(appetite.bytes(batch, patch), room):
                chosen = {"patch_vox": list(patch), "batch_size": batch}
                data = settings.model_copy(update=chosen)
                return dry.settings.model_copy(update={"datasets": data})
    raise ConfigError(
        "no size fits into the memory",
        found=f"{_gb(appetite.bytes(batches[-1], patches[-1]))} for {batches[-1]} x "
        f"{'x'.join(map(str, patches[-1]))} voxels, of {_gb(room)}",
        fix="a smaller network (models.channels), or a machine with more memory",
    )


def sized(dry: DryRun, split: Split, earlier: RunFolder | None) -> Settings:
    """The settings of a run with `auto` sizes decided; a resumed run has those it had.

    Raises:
        ConfigError: nothing fits.
    """
    settings = dry.settings.datasets
    if "auto" not in (settings.patch_vox, settings.batch_size):
        return dry.settings
    if follower():
        raise ConfigError(
            "datasets.patch_vox=auto and datasets.batch_size=auto are for one process",
            fix="hsf-finetune plan --forecast says what fits; set both for several processes",
        )
    if earlier is not None and earlier.file(_FILE).exists():
        kept = json.loads(earlier.file(_FILE).read_text())
        chosen = {"patch_vox": kept["patch_vox"], "batch_size": kept["batch_size"]}
        data = settings.model_copy(update=chosen)
        return dry.settings.model_copy(update={"datasets": data})
    with screen.progress("finding sizes that fit"):
        return decide_auto(dry, split)


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
        write_json(run.file(_FILE), {"patch_vox": sizes.patch_vox, "batch_size": sizes.batch_size})
        return
    if any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        # A trainer of one device cannot be made among several processes.
        return
    with screen.progress("a few dry steps"):
        found = forecast(dry, split, data)
    for line in found.lines():
        screen.say(line)
    if run is not None:
        kept = {"patch_vox": sizes.patch_vox, "batch_size": sizes.batch_size}
        write_json(run.file(_FILE), {**asdict(found), "seconds": found.seconds, **kept})


def measure_appetite(dry: DryRun, work: Workload) -> Appetite:
    """Memory and time of a step where the most trains, from two small sizes."""
    stages = dry.schedule.stages
    index = max(range(len(stages)), key=lambda n: len(stages[n].rates))
    divisor = dry.anatomy.divisor
    tiny = padded_shape((1, 1, 1), divisor)
    small = _half(work.typical_vox, divisor)
    if small == tiny:
        small = padded_shape([2 * n for n in tiny], divisor)
    one, two = (dry.measure(index, Load(1, size, tiny), steps=2) for size in (tiny, small))
    on_device = two.device_bytes > 0
    low, high = (
        (one.device_bytes, two.device_bytes) if on_device else (one.host_bytes, two.host_bytes)
    )
    voxels = math.prod(small) - math.prod(tiny)
    slope = max(high - low, 0) / voxels
    return Appetite(low - slope * math.prod(tiny), slope, two.step_s / math.prod(small), on_device)


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


def _half(shape: Triple, divisor: Triple) -> Triple:
    return padded_shape([max(n // 2, 1) for n in shape], divisor)


def _smaller(a: Triple, b: Triple) -> Triple:
    return min(a, b, key=math.prod)


def _shrinking(patch: Triple, divisor: Triple) -> Iterator[Triple]:
    """A patch, and smaller ones, the longest axis first."""
    yield patch
    while True:
        axis = max(range(3), key=lambda n: patch[n])
        shorter = list(patch)
        shorter[axis] -= max(divisor[axis], 8)
        smaller = padded_shape([max(n, 1) for n in shorter], divisor)
        if smaller == patch or smaller[axis] < _SMALLEST_PATCH:
            return
        patch = smaller
        yield patch


def _remedies(
    dry: DryRun, work: Workload, appetite: Appetite, room: int
) -> Iterator[tuple[str, str]]:
    """Overrides that make it fit, and what they do."""
    divisor = dry.anatomy.divisor
    accumulate = dry.settings.lightning.accumulate_grad_batches
    for batch in range(work.batch - 1, 0, -1):
        if work.batch % batch == 0 and not _lacks(appetite.bytes(batch, work.largest_vox), room):
            more = accumulate * work.batch // batch
            yield (
                f"datasets.batch_size={batch} lightning.accumulate_grad_batches={more}",
                "the same steps, in smaller parts",
            )
            break
    for patch in _shrinking(work.largest_vox, divisor):
        if not _lacks(appetite.bytes(work.batch, patch), room):
            text = ",".join(map(str, patch))
            yield (f"'datasets.patch_vox=[{text}]'", "smaller patches")
            break
    if getattr(dry.settings.models, "use_checkpoint", None) is False:
        yield ("models.use_checkpoint=true", "attention computed twice, in less memory")
    if dry.settings.datasets.cache in ("auto", "memory") and not appetite.on_device:
        yield ("datasets.cache=disk", "prepared cases on disk, not in memory")
    yield ("datasets.patch_vox=auto datasets.batch_size=auto", "let it find a size that fits")


def _lacks(needed: float, free: int | None) -> bool:
    return free is not None and needed > _MOST_SHARE * free


def _host_free(own: int) -> int:
    """Memory that this process may come to have: what is free and what it has, or its limit."""
    free = own + psutil.virtual_memory().available
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (int((Path("/sys/fs/cgroup") / n).read_text()) for n in (limit, used))
        except (OSError, ValueError):
            continue
        free = min(free, own + max(most - now, 0))
    return free


def _device_free() -> int:
    free, _ = torch.cuda.mem_get_info()
    return int(free) + torch.cuda.memory_reserved()


def _cache_bytes(cohort: Cohort, settings: Settings) -> float:
    """Room for the cases, where they are going to be kept in memory."""
    if settings.datasets.cache not in ("auto", "memory"):
        return 0.0
    spacing = settings.datasets.target_spacing_mm
    return sum(sample_bytes(case, spacing) for case in cohort.cases)


def _loading_s(data: CasesDataModule, clock: Clock) -> float:
    """Time that a batch takes to load, as far as steps wait for it."""
    if data.settings.num_workers:
        return 0.0
    batches = islice(iter(data.train_dataloader()), _LOADED)
    begin, count = clock(), 0
    for _ in batches:
        count += 1
    return (clock() - begin) / max(count, 1)


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
