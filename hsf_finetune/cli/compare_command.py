"""Fine-tune with every preset and compare the results, or compare runs that have ended.

hsf-finetune compare OVERRIDES takes the overrides of finetune.py, such as datasets=custom, and
makes one run per preset: same split, seed and epochs (lightning.max_epochs; unless set, the
length of the default preset's schedule). The same command resumes where it was interrupted.
hsf-finetune compare --runs RUN RUN ... compares runs that have ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsf_finetune.system.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="group.key=value")
    parser.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    parser.add_argument(
        "--presets",
        metavar="A,B,...",
        help="options of finetuning= (default: all that are shipped)",
    )
    parser.add_argument("--runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="model that differences refer to (default: full, else the best)",
    )
    parser.add_argument(
        "--on",
        choices=["validation", "test"],
        help="side of the split to compare on (default: test where there is one)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder to write into (default: one below datasets.output_path, or beside the runs)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    if options.runs and (options.overrides or options.presets or options.config_dir):
        raise ConfigError(
            "--runs compares runs as they are",
            found=" ".join([*options.overrides, options.presets or ""]).strip() or "--config-dir",
            fix="leave out either --runs, or overrides, --presets and --config-dir",
        )
    from hsf_finetune.evaluation.compare_runs import compare_runs
    from hsf_finetune.experiment.compare import compare_presets, show_comparison
    from hsf_finetune.experiment.presets import PRESETS, free_folder

    chosen = {"reference": options.reference, "side": options.on}
    if options.runs:
        first = options.runs[0].expanduser().resolve()
        output = options.output or free_folder(first.parent, "runs")
        show_comparison(compare_runs(options.runs, output=output, **chosen))
    else:
        compare_presets(
            options.overrides,
            presets=options.presets.split(",") if options.presets else PRESETS,
            config_dir=options.config_dir,
            output=options.output,
            **chosen,
        )
    return 0
