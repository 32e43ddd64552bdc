"""Show which blocks train when and at which rate, without training.

Takes the overrides of finetune.py, such as datasets=custom finetuning.mode=encoder.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="group.key=value")
    parser.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    parser.add_argument("-o", "--output", type=Path, help="picture to write: .png, .pdf or .svg")
    parser.add_argument(
        "--forecast",
        action="store_true",
        help="also make a few dry steps, and say what the run takes in memory and time",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.config.compose import compose
    from hsf_finetune.planning.plan_run import preview_run

    settings = compose("finetune", options.overrides, options.config_dir)
    preview_run(settings, options.output, forecast=options.forecast)
    return 0
