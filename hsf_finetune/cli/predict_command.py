"""Segment scans with a trained model.

A segmentation lies on its scan's own grid, has the label values of the training data, and gets
the name of the scan's first file. Of a folder, files that are named like labels are left out. What
is unusual about a scan, or unlike the training data, is said. Exits with 1 if a scan could not be
segmented.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("model", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "scans",
        nargs="+",
        help="images or folders; the channels of one scan are joined by commas",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--checkpoint", choices=["best", "last"], default="best", help="which one of a run"
    )
    parser.add_argument(
        "--pattern", metavar="GLOB", help="which files of a folder; all but labels if left out"
    )
    parser.add_argument("--key", help="HDF5: dataset inside the files")
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=float,
        metavar=("X", "Y", "Z"),
        help="HDF5: voxel size in mm where the files do not give it; that of the training data "
        "if left out",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--overwrite", action="store_true", help="segment scans again whose segmentation exists"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse scans that are unlike the training data"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.inference.predictor import Predictor
    from hsf_finetune.inference.segment_files import SegmentOptions, segment_files

    chosen = SegmentOptions(
        options.key,
        tuple(options.spacing) if options.spacing else None,
        options.pattern,
        options.overwrite,
        options.strict,
    )
    model = Predictor.load(options.model, options.checkpoint, options.device)
    results = segment_files(model, options.scans, options.output, chosen)
    return 1 if any(result.status == "failed" for result in results) else 0
