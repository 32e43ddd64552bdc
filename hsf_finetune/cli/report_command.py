"""Write the report of a run: one HTML page to read, print and send.

hsf-finetune report RUN writes RUN/report.html, as a run does when it has ended. It holds the result before and after, the worst
cases with their slices, learning curves, volumes, data, weights, a paragraph on methods and
settings, and requests nothing from the network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsf_finetune.cli.number_options import whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="folder of a run, its folds or a comparison"
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="file to write (default: RUN/report.html)"
    )
    parser.add_argument(
        "--cases",
        type=whole_number(0),
        default=4,
        help="how many of the worst cases to show (default: 4)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.evaluation.evaluate import check_is_free
    from hsf_finetune.report.save_report import save_report

    if options.output is not None and not options.overwrite:
        check_is_free(options.output)
    save_report(options.run, options.output, options.cases, options.device)
    return 0
