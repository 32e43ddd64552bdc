"""How large patches and batches may be: what a training step takes, and what is free."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import psutil

from hsf_finetune.data.loading.sample_store import estimate_sample_bytes
from hsf_finetune.data.preprocessing.resampling import Triple
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning.dry_run import DryVolumes, measure_stage
from hsf_finetune.planning.epoch_volumes import EpochVolumes, count_epoch_volumes, largest_shape
from hsf_finetune.planning.memory import fits_into, free_device_bytes, free_host_bytes, gigabytes
from hsf_finetune.planning.setup import Setup
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.processes import is_main_process
from hsf_finetune.system.read_json import read_json

FORECAST_FILE = "forecast.json"
"""File of a run that keeps its sizes, its precision and its forecast."""

_LARGEST_PATCH = 128
_SMALLEST_PATCH = 32


@dataclass(frozen=True)
class StepCost:
    """Memory and time of a training step, as straight lines over the voxels of a batch.

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


def with_sizes(setup: Setup) -> Setup:
    """The setup with `auto` sizes decided; a resumed run has those it had.

    Raises:
        ConfigError: nothing fits, or there are several processes.
        DataError: a header cannot be read.
    """
    settings = setup.settings.datasets
    if "auto" not in (settings.patch_vox, settings.batch_size):
        return setup
    if not is_main_process():
        raise ConfigError(
            "datasets.patch_vox=auto and datasets.batch_size=auto are for one process",
            fix="hsf-finetune plan --forecast says what fits; set both for several processes",
        )
    file = setup.resumed.file(FORECAST_FILE) if setup.resumed else None
    if file is not None and file.exists():
        kept = read_json(file, {"patch_vox": [int], "batch_size": int})
        return _sized(setup, kept["patch_vox"], kept["batch_size"])
    with console.progress("finding sizes that fit"):
        return choose_sizes(setup)


def choose_sizes(setup: Setup) -> Setup:
    """The setup with the largest patches and batches that fit.

    A patch is as large as the training volumes, up to that of the weights or of nnU-Net's rules,
    or else 128 voxels along an axis, and shrinks along its longest axis until batches fit into 85 % of the free memory. A batch is two, as
    small batches of large patches are worth more than the opposite (Isensee et al., 2021),
    and one where not even small patches fit by twos.

    Raises:
        ConfigError: nothing fits.
        DataError: a header cannot be read.
    """
    settings, divisor = setup.settings.datasets, setup.anatomy.divisor
    if settings.patch_vox == "auto":
        largest = largest_shape(setup.split.train, setup.card.preprocessing)
        most = setup.prepared.value.patch_vox or (_LARGEST_PATCH,) * 3
        sizes = [min(pair) for pair in zip(largest, most, strict=True)]
        whole = padded_shape(sizes, divisor)
        patches = list(smaller_patches(whole, divisor))
    else:
        whole = padded_shape(settings.patch_vox, divisor)
        patches = [whole]
    batches = [2, 1] if settings.batch_size == "auto" else [settings.batch_size]
    cost = measure_step_cost(setup, count_epoch_volumes(setup, whole, batches[0]))
    free = free_memory(cost)
    if not cost.on_device:
        free -= int(cache_bytes(setup))
    for batch in batches:
        for patch in patches:
            if fits_into(cost.bytes(batch, patch), free):
                return _sized(setup, list(patch), batch)
    raise ConfigError(
        "no size fits into the memory",
        found=f"{gigabytes(cost.bytes(batches[-1], patches[-1]))} for {batches[-1]} x "
        f"{'x'.join(map(str, patches[-1]))} voxels, of {gigabytes(free)}",
        fix="a smaller network (models.channels), or a machine with more memory",
    )


def measure_step_cost(setup: Setup, volumes: EpochVolumes) -> StepCost:
    """Memory and time of a step where the most trains, from two small sizes."""
    stages = setup.schedule.stages
    stage = max(range(len(stages)), key=lambda n: len(stages[n].rates))
    tiny = padded_shape((1, 1, 1), setup.anatomy.divisor)
    small = half_of(volumes.typical_vox, setup.anatomy.divisor)
    # Where no size lies between the smallest and the run's own, two of the smallest do.
    larger = DryVolumes(2, tiny, tiny) if small == tiny else DryVolumes(1, small, tiny)
    one = measure_stage(setup.job, stage, DryVolumes(1, tiny, tiny), steps=2)
    two = measure_stage(setup.job, stage, larger, steps=2)
    on_device = two.device_bytes > 0
    low, high = (
        (one.device_bytes, two.device_bytes) if on_device else (one.host_bytes, two.host_bytes)
    )
    least, most = math.prod(tiny), larger.batch * math.prod(larger.patch_vox)
    slope = max(high - low, 0) / (most - least)
    return StepCost(low - slope * least, slope, two.step_s / most, on_device)


def free_memory(cost: StepCost) -> int:
    """Memory that training may take, on the host or on the GPU."""
    if cost.on_device:
        return free_device_bytes()
    return free_host_bytes(psutil.Process().memory_info().rss)


def cache_bytes(setup: Setup) -> float:
    """Room for the cases, where they are going to be kept in memory."""
    if setup.settings.datasets.cache not in ("auto", "memory"):
        return 0.0
    how = setup.card.preprocessing
    return sum(estimate_sample_bytes(case, how) for case in setup.cohort.cases)


def half_of(shape: Triple, divisor: Triple) -> Triple:
    """Half a size along each axis, as the network needs it."""
    return padded_shape([max(n // 2, 1) for n in shape], divisor)


def smaller_patches(patch: Triple, divisor: Triple) -> Iterator[Triple]:
    """A patch, and smaller ones, the longest axis first."""
    while True:
        yield patch
        axis = max(range(3), key=lambda n: patch[n])
        shorter = list(patch)
        shorter[axis] -= max(divisor[axis], 8)
        smaller = padded_shape([max(n, 1) for n in shorter], divisor)
        if smaller == patch or smaller[axis] < _SMALLEST_PATCH:
            return
        patch = smaller


def _sized(setup: Setup, patch: Sequence[int], batch: int) -> Setup:
    sizes = {"patch_vox": list(patch), "batch_size": batch}
    data = setup.settings.datasets.model_copy(update=sizes)
    sized = {"patch_vox": padded_shape(patch, setup.anatomy.divisor)}
    value = setup.prepared.value.model_copy(update=sized)
    return replace(
        setup,
        settings=setup.settings.model_copy(update={"datasets": data}),
        prepared=replace(setup.prepared, value=value),
        card=replace(setup.card, preprocessing=value),
    )
