"""Export a trained model to another program, proved there.

Writes a new folder with the model, a README with the command that uses it, licence, model card and
checksums. The export then segments a validation case of the run, or the scan that is given, in
the program's own runtime; where it does not do so as `predict` does, nothing is left behind.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("model", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "--to",
        required=True,
        metavar="FORM",
        choices=["hsf", "onnx", "bundle", "nnunet", "checkpoint"],
        help="hsf (a model for HSF), onnx (one ONNX file), bundle (for MONAI), nnunet (a results "
        "folder of nnU-Net), checkpoint (weights and card alone)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the new folder")
    parser.add_argument(
        "--scan", help="the scan for the proof; the channels of one scan are joined by commas"
    )
    parser.add_argument(
        "--no-proof", action="store_true", help="write the export without comparing it"
    )
    parser.add_argument(
        "--upload", metavar="hf://OWNER/NAME", help="also send it to a new private repository"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.export.export_model import export
    from hsf_finetune.inference.scan_jobs import split_channels
    from hsf_finetune.system import console

    exported = export(
        options.model,
        options.to,
        options.output,
        scan=list(split_channels(options.scan)) if options.scan else None,
        proof=not options.no_proof,
        upload=options.upload,
    )
    console.say(str(exported))
    return 0
