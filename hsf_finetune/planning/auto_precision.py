"""Whether a processor's arithmetic for bfloat16 pays: a few steps in each precision."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from hsf_finetune.inference.engines import computes_bf16
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning.auto_sizes import FORECAST_FILE, half_of
from hsf_finetune.planning.dry_run import DryVolumes, measure_stage
from hsf_finetune.planning.epoch_volumes import count_epoch_volumes
from hsf_finetune.planning.setup import Setup
from hsf_finetune.system import console
from hsf_finetune.training.trainer import trains_in_several_processes

FULL, ROUNDED = "32-true", "bf16-mixed"
_WORTH = 1.25
"""bfloat16 rounds to 8 bits, so it has to be so many times as fast."""


def with_precision(setup: Setup) -> Setup:
    """The setup with `lightning.precision=auto` decided; a resumed run has the one it had.

    On a GPU, in several processes, and on a processor without arithmetic for bfloat16 nothing
    is to be decided.

    Args:
        setup: of a run, from `with_sizes`.

    Raises:
        DataError: a header cannot be read.
    """
    engine = setup.settings.lightning
    decides = engine.precision == "auto" and setup.device.type == "cpu"
    if not decides or trains_in_several_processes(engine):
        return setup
    has_rounded = computes_bf16(setup.device)
    file = setup.resumed.file(FORECAST_FILE) if setup.resumed else None
    if file is not None and file.exists():
        kept = json.loads(file.read_text()).get("precision", FULL)
        if kept == ROUNDED and not has_rounded:
            console.say(
                f"warning: the run began in {ROUNDED}, for which this processor has no arithmetic: "
                "each step takes many times as long. It goes on so, to be one run; "
                f"lightning.precision={FULL} starts another one"
            )
        return _with(setup, kept)
    if not has_rounded:
        return setup
    with console.progress("comparing precisions"):
        full, rounded = (_step_s(_with(setup, name)) for name in (FULL, ROUNDED))
    chosen = ROUNDED if full > _WORTH * rounded else FULL
    console.say(
        f"precision: {chosen}, since a step in bfloat16 is {full / rounded:.1f} times as fast here; "
        f"lightning.precision={FULL if chosen == ROUNDED else ROUNDED} for the other one"
    )
    return _with(setup, chosen)


def _step_s(setup: Setup) -> float:
    """Processor seconds of a step where the most trains, on half of a patch."""
    settings, divisor = setup.settings.datasets, setup.anatomy.divisor
    assert settings.patch_vox != "auto"
    assert settings.batch_size != "auto"
    patch = padded_shape(settings.patch_vox, divisor)
    volumes = count_epoch_volumes(setup, patch, settings.batch_size)
    small, tiny = half_of(volumes.typical_vox, divisor), padded_shape((1, 1, 1), divisor)
    stages = setup.schedule.stages
    stage = max(range(len(stages)), key=lambda n: len(stages[n].rates))
    dry = DryVolumes(volumes.batch, small, tiny)
    return measure_stage(setup.job, stage, dry, clock=time.process_time).step_s


def _with(setup: Setup, precision: str) -> Setup:
    engine = setup.settings.lightning.model_copy(update={"precision": precision})
    return replace(setup, settings=setup.settings.model_copy(update={"lightning": engine}))
