"""A forecast: memory and time of a run, and what to change where it does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from hsf_finetune.data.preprocessing.resampling import Triple
from hsf_finetune.planning.memory import fits_into, gigabytes


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
        dry_vox: size of the volumes of the dry steps that it was made from.
        dry_batch: volumes of such a step.
        host_bytes: most memory of the process.
        host_free_bytes: memory that it may take.
        device_bytes: most memory of the GPU; None without one.
        device_free_bytes: of it that is free; None likewise.
        stages: how long their epochs take.
        extrapolated: whether the dry steps were smaller than those of the run.
        may_end_early: whether a plateau of validation may end a stage.
        remedies: overrides that make it fit, each with what it does; none where it does.
    """

    dry_vox: Triple
    dry_batch: int
    host_bytes: int
    host_free_bytes: int
    device_bytes: int | None
    device_free_bytes: int | None
    stages: tuple[StageTime, ...]
    extrapolated: bool
    may_end_early: bool
    remedies: tuple[tuple[str, str], ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return fits_into(self.host_bytes, self.host_free_bytes) and fits_into(
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
            free = gigabytes(self.device_free_bytes)
            memory = f"{gigabytes(self.device_bytes)} of GPU memory (of {free}), {memory}"
        times = list(dict.fromkeys(f"{stage.seconds:.3g} s" for stage in self.stages))
        spread = times[0] if len(times) == 1 else f"{times[0]} (first stage) to {times[-1]} (last)"
        how = "extrapolated from smaller dry steps" if self.extrapolated else "from dry steps"
        epochs = sum(stage.epochs for stage in self.stages)
        size = "x".join(map(str, self.dry_vox))
        early = "a plateau may end them earlier, " if self.may_end_early else ""
        found = [
            f"forecast, {how} of {self.dry_batch} x {size} voxels: {memory}",
            f"  an epoch takes about {spread}, {epochs} epochs about "
            f"{timedelta(seconds=round(self.seconds))} ({early}other programs make them longer)",
        ]
        if not self.fits:
            found.append("  warning: this is more memory than there is. It may fit with")
            found += [f"    {override}  ({why})" for override, why in self.remedies]
        return found
