"""Write the phantom cohort that the demo runs on."""

from __future__ import annotations

import argparse
from pathlib import Path

from hsf_finetune.cli.number_options import whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the shapes and the noise"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.data.phantom.write_phantoms import PhantomCohort, write_phantoms
    from hsf_finetune.system.console import progress, say

    with progress(f"phantom cohort in {options.folder}") as tick:
        write_phantoms(options.folder, PhantomCohort(seed=options.seed), progress=tick)
    say(f"the phantom cohort is in {options.folder}")
    return 0
