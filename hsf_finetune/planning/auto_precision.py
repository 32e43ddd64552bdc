"""Whether a processor's arithmetic for bfloat16 pays: a few steps in each precision."""

from __future__ import annotations

import hashlib
import json
import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from hsf_finetune.inference.engines import computes_bf16
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.networks.pretrained_network import architecture_settings
from hsf_finetune.planning.auto_sizes import FORECAST_FILE, half_of
from hsf_finetune.planning.dry_run import DryVolumes, measure_stage
from hsf_finetune.planning.epoch_volumes import largest_shape
from hsf_finetune.planning.setup import Setup
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import cache_folder, write_json
from hsf_finetune.system.errors import OutputError
from hsf_finetune.system.processor import processor_name
from hsf_finetune.system.read_json import read_json
from hsf_finetune.training.trainer import trains_in_several_processes

FULL, ROUNDED = "32-true", "bf16-mixed"
_WORTH = 1.25
"""bfloat16 rounds to 8 bits, so it has to be so many times as fast."""
_SHORT_S, _LONG_S = 0.02, 2.0
"""Below so many seconds a step is not worth rounding, nor can it be timed well; from so many on it
is timed once, and below twice."""
_LARGEST_VOX = 64**3
"""Larger patches are halved, as long as the steps that are timed would take too long; smaller ones are
timed as they are, since in bfloat16 small volumes are no faster."""
_MOST_CASES = 50
"""The headers of so many cases are read to know how large volumes are."""


def with_precision(setup: Setup) -> Setup:
    """The setup with `lightning.precision=auto` decided; a resumed run has the one it had.

    What was measured is kept in the user's cache, so that the same run has the same precision
    again, and so do all runs of a comparison, folds or a sweep. On a GPU, in several processes, and on
    a processor without arithmetic for bfloat16 nothing is to be decided.

    Args:
        setup: of a run, from `with_sizes`.

    Raises:
        DataError: a header cannot be read.
    """
    engine = setup.settings.lightning
    if engine.precision != "auto":
        return setup
    has_rounded = computes_bf16(setup.device)
    begun = setup.resumed.file(FORECAST_FILE) if setup.resumed else None
    if begun is not None and begun.exists():
        kept = read_json(begun, {}).get("precision", "auto")
        if kept == ROUNDED and not has_rounded:
            console.say(
                f"warning: the run began in {ROUNDED}, for which this machine has no arithmetic: "
                "each step takes many times as long. It goes on so, to be one run; "
                f"lightning.precision={FULL} starts another one"
            )
        return _with(setup, kept)
    if not has_rounded or setup.device.type != "cpu" or trains_in_several_processes(engine):
        return setup
    volume = _timed_volume(setup)
    file = _kept_file(setup, volume)
    ratio = _read(file)
    if ratio is None:
        with console.progress("comparing precisions"):
            ratio = _measure(setup, volume)
        _keep(file, ratio)
    chosen, other = (ROUNDED, FULL) if ratio > _WORTH else (FULL, ROUNDED)
    found = f"a step in bfloat16 is {ratio:.2f} times as fast here" if ratio else "steps are short"
    wanted = "" if chosen == ROUNDED or not ratio else f", of {_WORTH} that it should be"
    console.say(
        f"precision: {chosen}, since {found}{wanted}; lightning.precision={other} for the other one"
    )
    return _with(setup, chosen)


# -------------------------------------------------------------------- internals
def _measure(setup: Setup, volume: DryVolumes) -> float:
    """How many times as fast a step in bfloat16 is, in turn, the least times; 0 where steps are short."""
    full = _step_s(_with(setup, FULL), volume)
    if full < _SHORT_S:
        return 0.0
    rounded = _step_s(_with(setup, ROUNDED), volume)
    if full < _LONG_S:
        full = min(full, _step_s(_with(setup, FULL), volume))
        rounded = min(rounded, _step_s(_with(setup, ROUNDED), volume))
    return full / rounded


def _kept_file(setup: Setup, volume: DryVolumes) -> Path:
    """Where the ratio is kept, of networks on volumes of such a size on such a processor.

    How they are trained does not count: folds, strategies and rates that are compared with each
    other have the same precision.
    """
    network = architecture_settings(setup.settings.models.model_dump(mode="json"))
    sizes = [volume.patch_vox, setup.cohort.channels, len(setup.cohort.classes)]
    text = json.dumps([processor_name(), torch.__version__, network, sizes], sort_keys=True)
    return cache_folder() / "precisions" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _read(file: Path) -> float | None:
    try:
        ratio = float(json.loads(file.read_text(encoding="utf-8"))["times_as_fast"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ratio if 0 <= ratio < math.inf else None


def _keep(file: Path, ratio: float) -> None:
    """Keeps the ratio; a cache that cannot be written is no reason to stop."""
    with suppress(OutputError, OSError):
        write_json(file, {"times_as_fast": ratio})


def _timed_volume(setup: Setup) -> DryVolumes:
    """A volume of a step, halved until it is no larger than `_LARGEST_VOX`.

    Of all cases, whichever of them train, so that it is the same in every fold.
    """
    settings, divisor = setup.settings.datasets, setup.anatomy.divisor
    assert settings.patch_vox != "auto"
    some = setup.cohort.cases[:_MOST_CASES]
    largest = largest_shape(some, setup.card.preprocessing)
    most = [min(a, b) for a, b in zip(largest, settings.patch_vox, strict=True)]
    timed, tiny = padded_shape(most, divisor), padded_shape((1, 1, 1), divisor)
    while math.prod(timed) > max(_LARGEST_VOX, math.prod(tiny)):
        timed = half_of(timed, divisor)
    return DryVolumes(1, timed, tiny)


def _step_s(setup: Setup, volume: DryVolumes) -> float:
    """Processor seconds of the fastest step where the most trains: other programs make some longer."""
    stages = setup.schedule.stages
    stage = max(range(len(stages)), key=lambda n: len(stages[n].rates))
    return measure_stage(setup.job, stage, volume, clock=time.process_time).least_step_s


def _with(setup: Setup, precision: str) -> Setup:
    engine = setup.settings.lightning.model_copy(update={"precision": precision})
    return replace(setup, settings=setup.settings.model_copy(update={"lightning": engine}))
