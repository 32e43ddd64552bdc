"""What a run is going to do: the weights, the schedule and the forecast, shown before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from hsf_finetune.check.check_data import ReadWeights, check_data, has_local_weights
from hsf_finetune.check.check_report import CheckReport
from hsf_finetune.check.findings import Finding, flatten_errors
from hsf_finetune.config.settings import PretrainedSettings, Settings
from hsf_finetune.data.augment.flips import plan_flips
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.phantom.write_phantoms import make_phantom_cohort
from hsf_finetune.labels.similar_names import warn_similar_names
from hsf_finetune.planning.auto_precision import with_precision
from hsf_finetune.planning.auto_sizes import with_sizes
from hsf_finetune.planning.forecast_run import add_forecast
from hsf_finetune.planning.prove_source import prove_source
from hsf_finetune.planning.setup import Setup, prepare
from hsf_finetune.schedule.display.text_picture import (
    ASCII_CHARACTERS,
    MIN_WIDTH,
    UNICODE_CHARACTERS,
    draw_as_text,
)
from hsf_finetune.system.console import console, say
from hsf_finetune.system.errors import UserError


def plan_run(settings: Settings, *, forecast: bool = False) -> Setup:
    """What a run would do, read from headers, and from next to no voxels (see `prepare`).

    Args:
        settings: of the run.
        forecast: also make a few dry steps, to say what the run takes in memory and time.

    Raises:
        UserError: the cases, the weights, the network or the schedule do not fit together.
    """
    if settings.lightning.threads:
        torch.set_num_threads(settings.lightning.threads)
    make_phantom_cohort(settings.datasets)
    cohort = discover(settings.datasets, settings.models)
    setup = prepare(settings, cohort, preview=True)
    return add_forecast(with_precision(with_sizes(setup))) if forecast else setup


def check_run(
    settings: Settings, read_weights: ReadWeights, jobs: int | None = None
) -> CheckReport:
    """What `check_data` finds, what a run would refuse of its settings, and `prove_source`.

    Weights that would have to be fetched or trained are left out.

    Args:
        settings: of the run.
        read_weights: as for `check_data`.
        jobs: as for `check_data`.

    Raises:
        UserError: the weights cannot be read.
    """
    report = check_data(settings, read_weights, jobs)
    if report.cohort is None or report.count("refused"):
        return report
    if settings.weights.pretrained is not None and not has_local_weights(settings):
        if isinstance(settings.models, PretrainedSettings):
            return report
        weights = settings.weights.model_copy(update={"pretrained": "none"})
        data = settings.datasets.model_copy(update={"retention": {}})
        settings = settings.model_copy(update={"weights": weights, "datasets": data})
    try:
        setup = prepare(settings, report.cohort, preview=True)
    except UserError as error:
        root = settings.datasets.main_path
        refused = [Finding.refusal(one, "set/settings", root) for one in flatten_errors(error)]
        return replace(report, findings=(*refused, *report.findings))
    root = settings.datasets.main_path
    doubts = [
        Finding("warned", "set/preprocessing", line, root) for line in setup.prepared.warnings
    ]
    report = replace(report, findings=(*doubts, *report.findings))
    proof = prove_source(setup) if setup.transfer else ""
    return replace(report, overview=(*report.overview, f"weights: {proof}")) if proof else report


def preview_run(
    settings: Settings, picture: Path | None = None, *, forecast: bool = False
) -> Setup:
    """Prints what `plan_run` finds, and draws the schedule.

    Args:
        settings: of the run.
        picture: PNG, PDF or SVG of the schedule to write; None writes nothing.
        forecast: as for `plan_run`.

    Raises:
        UserError: as `plan_run`, or the picture cannot be written.
    """
    setup = plan_run(settings, forecast=forecast)
    show_plan(setup)
    datasets, classes = settings.datasets.datasets, setup.cohort.classes
    for line in warn_similar_names(datasets, settings.models, classes):
        say(f"names: {line}")
    say(plan_flips(settings.augmentation, classes).remark)
    if setup.transfer is None and settings.task == "finetune":
        say("no pretrained weights were read: " + _why_without_weights(settings))
    if picture is not None:
        # Imported late, as Matplotlib takes a second.
        from hsf_finetune.schedule.display.schedule_picture import save_picture

        save_picture(setup.schedule, picture)
        say(f"the picture is in {picture}")
    return setup


def show_plan(setup: Setup) -> None:
    """The transfer receipt and the schedule, as a table and, where it fits, as a picture."""
    console.print(*setup.tables(), sep="\n")
    if console.width >= MIN_WIDTH:
        characters = ASCII_CHARACTERS if console.options.ascii_only else UNICODE_CHARACTERS
        console.print("", draw_as_text(setup.schedule, console.width, characters), sep="\n")


def _why_without_weights(settings: Settings) -> str:
    name = settings.weights.pretrained
    if name == "none":
        return "pretrained is none, so that the network starts from random weights"
    if name is None and not settings.datasets.generate:
        return "fine-tuning needs finetuning.pretrained=PATH (or none)"
    return "the phantom source model is trained when the run starts"
