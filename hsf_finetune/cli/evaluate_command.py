"""Score segmentations against labels, or a run on one side of its split.

hsf-finetune evaluate PREDICTION LABEL compares two files, or the files of two folders by name
(case_0000 of nnU-Net with case, sub-01_T2w of BIDS with sub-01_dseg);
hsf-finetune evaluate RUN scores a run's model; hsf-finetune evaluate RUN1 RUN2 the mean of both;
hsf-finetune evaluate WEIGHTS datasets=mine weights as they are, such as the folder of an nnU-Net, on
all cases of a dataset.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsf_finetune.cli.number_options import number_from_zero
from hsf_finetune.system.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("prediction", metavar="PREDICTION_OR_RUN_OR_WEIGHTS")
    parser.add_argument("more", nargs="*", metavar="LABEL_OR_RUN_OR_group.key=value")
    parser.add_argument("--config-dir", type=Path, help="folder with your own datasets/mine.yaml")
    parser.add_argument(
        "--split", choices=["train", "validation", "test"], default="validation", help="of a run"
    )
    parser.add_argument(
        "--labels", default="", help="names of label values: 1=DG,2=CA1 (default: every value)"
    )
    parser.add_argument(
        "--tolerance-mm",
        type=number_from_zero("mm"),
        help="of the surface Dice (default: 1, or one voxel's diagonal for data of another scale)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="CSV to write, one line per case and class"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="page to write: classes, cases, volumes"
    )
    parser.add_argument("--device", default="auto", help="of a run: auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--tta",
        choices=["off", "shift", "flip", "all"],
        default="off",
        help="of a run: the mean over several views of each scan, as for predict",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.evaluation.evaluate import (
        check_is_free,
        evaluate_files,
        evaluate_run,
        evaluate_weights,
    )
    from hsf_finetune.system.console import console, say

    for path in filter(None, (options.output, options.report)):
        check_is_free(path)
    overrides = [one for one in options.more if "=" in one and not Path(one).exists()]
    first, more = Path(options.prediction), [Path(one) for one in options.more]
    tolerance_mm = options.tolerance_mm
    if overrides:
        if overrides != options.more:
            raise ConfigError(
                "settings of a dataset stand beside one model",
                found=", ".join(options.more),
                fix="hsf-finetune evaluate WEIGHTS datasets=mine",
            )
        where = (options.config_dir, tolerance_mm, options.device, options.tta)
        found = evaluate_weights(options.prediction, overrides, *where)
    elif len(more) != 1 or (more[0] / "config.yaml").exists():
        how = (options.split, tolerance_mm, options.device, more, options.tta)
        found = evaluate_run(first, *how)
    else:
        found = evaluate_files(first, more[0], parse_names(options.labels), tolerance_mm)
    console.print(*found.tables(), sep="\n")
    if options.output is not None:
        found.save(options.output)
        say(f"scores of every case: {options.output}")
    if options.report is not None:
        from hsf_finetune.report.save_report import save_scores_report

        save_scores_report(found, options.report)
    return 0


def parse_names(text: str) -> dict[int, str]:
    """`1=DG,2=CA1` -> {1: DG, 2: CA1}.

    Raises:
        ConfigError: the text is not of that form, or a value or a name is there twice.
    """
    names: dict[int, str] = {}
    for part in filter(None, text.split(",")):
        value, _, name = (word.strip() for word in part.partition("="))
        if not (name and value.isdecimal()):
            raise ConfigError("--labels cannot be read", found=text, expected="1=DG,2=CA1")
        if int(value) in names or name in names.values():
            twice = f"value {value}" if int(value) in names else f"name {name}"
            raise ConfigError(
                f"the {twice} is there twice in --labels",
                found=text,
                expected="one name for each value, and one value for each name",
            )
        names[int(value)] = name
    return names
