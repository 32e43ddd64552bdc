"""How large patches and batches may be: what a step takes, and what is free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.loading.sample_store import sample_bytes
from hsf_finetune.data.splits import Split
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning.dry_run import DryRun, Load
from hsf_finetune.planning.workload import Triple, Workload, largest_shape, workload
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.processes import is_main_process
from hsf_finetune.system.run_folder import RunFolder

FORECAST_FILE = "forecast.json"
"""File of a run that keeps its sizes, and its forecast."""

_MOST_SHARE = 0.85
"""Share of the free memory that a run may be planned to take."""
_LARGEST_PATCH = 128
_SMALLEST_PATCH = 32


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


def sized(dry: DryRun, split: Split, earlier: RunFolder | None) -> Settings:
    """The settings of a run with `auto` sizes decided; a resumed run has those it had.

    Raises:
        ConfigError: nothing fits.
    """
    settings = dry.settings.datasets
    if "auto" not in (settings.patch_vox, settings.batch_size):
        return dry.settings
    if not is_main_process():
        raise ConfigError(
            "datasets.patch_vox=auto and datasets.batch_size=auto are for one process",
            fix="hsf-finetune plan --forecast says what fits; set both for several processes",
        )
    if earlier is not None and earlier.file(FORECAST_FILE).exists():
        kept = json.loads(earlier.file(FORECAST_FILE).read_text())
        chosen = {"patch_vox": kept["patch_vox"], "batch_size": kept["batch_size"]}
        data = settings.model_copy(update=chosen)
        return dry.settings.model_copy(update={"datasets": data})
    with console.progress("finding sizes that fit"):
        return decide_auto(dry, split)


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
    room = device_free() if appetite.on_device else host_free(psutil.Process().memory_info().rss)
    if not appetite.on_device:
        room -= int(cache_bytes(dry.cohort, dry.settings))
    patches = [whole] if settings.patch_vox != "auto" else list(_shrinking(whole, divisor))
    for batch in batches:
        for patch in patches:
            if not lacks(appetite.bytes(batch, patch), room):
                chosen = {"patch_vox": list(patch), "batch_size": batch}
                data = settings.model_copy(update=chosen)
                return dry.settings.model_copy(update={"datasets": data})
    raise ConfigError(
        "no size fits into the memory",
        found=f"{gigabytes(appetite.bytes(batches[-1], patches[-1]))} for {batches[-1]} x "
        f"{'x'.join(map(str, patches[-1]))} voxels, of {gigabytes(room)}",
        fix="a smaller network (models.channels), or a machine with more memory",
    )


def measure_appetite(dry: DryRun, work: Workload) -> Appetite:
    """Memory and time of a step where the most trains, from two small sizes."""
    stages = dry.schedule.stages
    index = max(range(len(stages)), key=lambda n: len(stages[n].rates))
    divisor = dry.anatomy.divisor
    tiny = padded_shape((1, 1, 1), divisor)
    small = half(work.typical_vox, divisor)
    # Where no size lies between the smallest and the run's own, two of the smallest do.
    larger = Load(2, tiny, tiny) if small == tiny else Load(1, small, tiny)
    one, two = (dry.measure(index, load, steps=2) for load in (Load(1, tiny, tiny), larger))
    on_device = two.device_bytes > 0
    low, high = (
        (one.device_bytes, two.device_bytes) if on_device else (one.host_bytes, two.host_bytes)
    )
    least, most = math.prod(tiny), larger.batch * math.prod(larger.patch_vox)
    slope = max(high - low, 0) / (most - least)
    return Appetite(low - slope * least, slope, two.step_s / most, on_device)


def remedies(
    dry: DryRun, work: Workload, appetite: Appetite, room: int
) -> Iterator[tuple[str, str]]:
    """Overrides that make it fit, and what they do."""
    divisor = dry.anatomy.divisor
    accumulate = dry.settings.lightning.accumulate_grad_batches
    for batch in range(work.batch - 1, 0, -1):
        if work.batch % batch == 0 and not lacks(appetite.bytes(batch, work.largest_vox), room):
            more = accumulate * work.batch // batch
            yield (
                f"datasets.batch_size={batch} lightning.accumulate_grad_batches={more}",
                "the same steps, in smaller parts",
            )
            break
    for patch in _shrinking(work.largest_vox, divisor):
        if not lacks(appetite.bytes(work.batch, patch), room):
            text = ",".join(map(str, patch))
            yield (f"'datasets.patch_vox=[{text}]'", "smaller patches")
            break
    if getattr(dry.settings.models, "use_checkpoint", None) is False:
        yield ("models.use_checkpoint=true", "attention computed twice, in less memory")
    if dry.settings.datasets.cache in ("auto", "memory") and not appetite.on_device:
        yield ("datasets.cache=disk", "prepared cases on disk, not in memory")
    yield ("datasets.patch_vox=auto datasets.batch_size=auto", "let it find a size that fits")


def host_free(own: int) -> int:
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


def device_free() -> int:
    """Memory of the GPU that this process may come to have."""
    free, _ = torch.cuda.mem_get_info()
    return int(free) + torch.cuda.memory_reserved()


def cache_bytes(cohort: Cohort, settings: Settings) -> float:
    """Room for the cases, where they are going to be kept in memory."""
    if settings.datasets.cache not in ("auto", "memory"):
        return 0.0
    spacing = settings.datasets.target_spacing_mm
    return sum(sample_bytes(case, spacing) for case in cohort.cases)


def lacks(needed: float, free: int | None) -> bool:
    """Whether more is needed than may be planned for; never where what is free is unknown."""
    return free is not None and needed > _MOST_SHARE * free


def half(shape: Triple, divisor: Triple) -> Triple:
    """Half a size along each axis, as the network needs it."""
    return padded_shape([max(n // 2, 1) for n in shape], divisor)


def gigabytes(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.2f} GB"


# -------------------------------------------------------------------- internals
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
