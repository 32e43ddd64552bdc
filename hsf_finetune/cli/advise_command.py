"""Say which settings suit the data and the pretrained weights, and why.

Takes the overrides of finetune.py, such as datasets=custom finetuning.pretrained=RUN. Checks the
cases, compares classes, voxel size and contrast with those of the source model, tries it on a few
cases, and gives each piece of advice with its reason and the override to paste. Nothing is
trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsf_finetune.check.check_report import CheckReport
    from hsf_finetune.config.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="group.key=value")
    parser.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.check.check_data import check_data
    from hsf_finetune.config.compose import compose
    from hsf_finetune.data.phantom.write_phantoms import make_phantom_cohort
    from hsf_finetune.planning.start import read_source_checkpoint
    from hsf_finetune.system.console import say

    settings = compose("finetune", options.overrides, options.config_dir)
    make_phantom_cohort(settings.datasets)
    for line in advise_on(settings, check_data(settings, read_source_checkpoint)):
        say(line)
    return 0


def advise_on(settings: Settings, report: CheckReport) -> list[str]:
    """The advice for these data and weights, as lines to print.

    Raises:
        UserError: the data or the weights cannot be used as they are.
    """
    from hsf_finetune.planning.diagnosis import advise

    return [line for advice in advise(settings, report) for line in advice.lines()]
