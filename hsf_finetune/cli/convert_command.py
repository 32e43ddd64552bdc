"""Convert a dataset to nnU-Net's raw data, or nnU-Net's plans to settings.

Takes the overrides of finetune.py, such as datasets=custom, a dataset YAML, or the folder of a run,
and writes DatasetXXX_NAME with imagesTr, labelsTr, dataset.json and splits_final.json; of a run with
models=nnunet also plans. Or takes a plans.json, and writes settings for --config-dir. The other
way, `hsf-finetune init DatasetXXX_NAME` describes nnU-Net's raw data where they are, and
datasets.split_file=splits_final.json datasets.fold=0 uses its split.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="a run, a dataset YAML, overrides (group.key=value), or a plans.json",
    )
    parser.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="the new DatasetXXX_NAME; of plans a folder",
    )
    parser.add_argument(
        "--link", action="store_true", help="link to images where they are, instead of copying them"
    )
    parser.add_argument(
        "--configuration", default="3d_fullres", help="of the plans (default: 3d_fullres)"
    )
    parser.add_argument(
        "--orientation", default="RAS", help="of the images that plans are for (default: RAS)"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.convert.dataset_as_nnunet import convert_run, usage_of, write_raw_dataset
    from hsf_finetune.convert.plans_as_settings import write_settings
    from hsf_finetune.system import console

    first, output = Path(options.source[0]).expanduser(), options.output.expanduser()
    if first.suffix == ".json":
        command = write_settings(first, output, options.configuration, options.orientation)
        console.say(
            f"written: the network and the preprocessing of {first}\nuse them:\n  {command}"
        )
        return 0
    if (first / "config.yaml").is_file():
        convert_run(first, output, options.link)
    else:
        from hsf_finetune.cli.check_command import as_overrides
        from hsf_finetune.config.compose import compose

        with as_overrides(options.source, options.config_dir) as (overrides, own):
            settings = compose("finetune", overrides, own)
        write_raw_dataset(settings, output, options.link)
    console.say(usage_of(output))
    return 0
