"""Choose which scans without labels to segment by hand next.

The model segments every scan of the folder, and foretells the Dice of each. Of those that it is least
sure of, that are within its reach, and that its run may learn from, it takes scans that are unlike
each other. For each of them there are a link to the image, the segmentation to correct, with tables of
names and colours for 3D Slicer, ITK-SNAP and FreeSurfer, and a picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsf_finetune.cli.number_options import whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("model", metavar="RUN", help="folder of a run, or a checkpoint of one")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of scans without labels")
    parser.add_argument(
        "--k", type=whole_number(1), default=5, metavar="N", help="how many scans; 5"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from functools import partial

    from rich.text import Text

    from hsf_finetune.evaluation.known_cases import run_of
    from hsf_finetune.inference.predictor import Predictor
    from hsf_finetune.planning.run_cases import read_run_cases
    from hsf_finetune.planning.unlabelled import drop_known_scans
    from hsf_finetune.quality.next_scans import choose_next, rank_scans, write_next
    from hsf_finetune.system.console import TitledTable, console, count_of, progress, say
    from hsf_finetune.system.errors import UserError
    from hsf_finetune.system.freed_memory import keep_freed_memory

    keep_freed_memory()
    model = Predictor.load(options.model, device=options.device)
    rank = partial(rank_scans, model, options.folder, options.output)
    if folder := run_of(options.model):
        try:
            rank = partial(rank, drop_known=partial(drop_known_scans, known=read_run_cases(folder)))
        except (UserError, OSError) as error:
            say(
                "the cases of the run cannot be found, so they may be among the scans: "
                f"{str(error).splitlines()[0]}"
            )
    with progress("segmenting") as tick:
        candidates, left_out = rank(progress=tick)
    for path, why in left_out:
        say(f"left out: {path.name}: {why}")
    chosen = choose_next(candidates, options.k)
    if not chosen:
        say("no scan is left that can be chosen")
        return 1
    table = TitledTable(f"Segment these {len(chosen)} of {count_of(len(candidates), 'scan')} next")
    table.add_column("scan", overflow="fold")
    table.add_column("expected Dice", justify="right")
    for one in chosen:
        table.add_row(Text(str(one.job.channels[0].path)), f"{one.expected:.3f}")
    console.print(table)
    say(f"to correct, with the list: {write_next(model, chosen, options.output)}")
    return 0
