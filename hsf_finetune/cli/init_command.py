"""Write the dataset YAML that describes a folder of images and labels.

Knows BIDS, nnU-Net's and the Medical Segmentation Decathlon's imagesTr and labelsTr, folders per
subject, flat folders and HDF5 files. What is uncertain is marked '# unsure:' in the YAML, and
listed.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="your data")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR/datasets/NAME.yaml",
        help="file to write (default: my_conf/datasets/FOLDER.yaml)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.describe.describe_folder import describe_folder

    describe_folder(options.folder, options.output, force=options.force)
    return 0
