"""Go on from a trained model with segmentations that a person has corrected.

Give the folder that `hsf-finetune next` wrote, or the one that `predict` wrote with --scans. The model
trains a few steps more, on the corrected scans and on the cases of its run, as far as no earlier validation
case loses more than .005 Dice. The new run is one as any other: `predict` with it, or `learn` again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsf_finetune.cli.number_options import whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "corrections", type=Path, metavar="CORRECTIONS", help="folder of corrected segmentations"
    )
    parser.add_argument(
        "--scans", type=Path, help="folder of their scans; not needed for what `next` wrote"
    )
    parser.add_argument(
        "--steps", type=whole_number(1), default=60, metavar="N", help="of training; 60"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new run")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code: 1 where an earlier case lost too much."""
    from hsf_finetune.experiment.earlier_cases import MOST_LOST
    from hsf_finetune.experiment.learn import learn
    from hsf_finetune.system.console import count_of, say

    learnt = learn(
        options.run,
        options.corrections,
        options.output,
        options.scans,
        options.steps,
    )
    for case, lost in sorted(learnt.worse.items(), key=lambda one: -one[1]):
        say(f"lost {lost:.3f} of its Dice: {case}")
    if learnt.worse:
        say(
            f"{count_of(len(learnt.worse), 'earlier case')} lost more than {MOST_LOST:g} since the "
            f"first corrections: keep {options.run}, or give fewer --steps"
        )
        return 1
    gained = -sum(learnt.losses.values()) / len(learnt.losses)
    say(
        f"earlier cases{learnt.trained}: Dice {gained:+.3f} on average, "
        f"{-max(learnt.losses.values()):+.3f} at worst"
    )
    seen = " (cases that trained say little of other scans)"
    say(
        f"no earlier case lost more than {MOST_LOST:g}{seen if learnt.trained else ''}; next: "
        f"hsf-finetune learn {options.output} CORRECTIONS -o LEARNT"
    )
    return 0
