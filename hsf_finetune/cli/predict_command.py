"""Segment scans with a trained model, or with weights by others as they are.

A segmentation lies on its scan's own grid, has the label values of the training data, and gets
the name of the scan's first file. Of a folder, files that are named like labels are left out. What
is unusual about a scan, or unlike the training data, is said. Exits with 1 if a scan could not be
segmented.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsf_finetune.cli.number_options import (
    number_above_zero,
    number_from_zero,
    shard,
    whole_number,
)

_FORMATS = ("nifti", "seg.nrrd", "dicom-seg", "bids")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "model",
        metavar="WEIGHTS",
        help="folder of a run, a checkpoint, or other weights that say their classes and how scans "
        "are prepared: an nnU-Net, a MONAI bundle, an address, or a name of conf/weights; further "
        "runs or checkpoints may follow: the mean of their probabilities decides",
    )
    parser.add_argument(
        "scans",
        nargs="+",
        metavar="SCANS",
        help="images or folders; the channels of one scan are joined by commas, or are files "
        "case_0000, case_0001 of one folder",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of weights by others, what they do not say, as for finetune.py: "
        "finetuning.source_classes=[background,DG] preprocessing=hsf models=unet",
    )
    parser.add_argument(
        "--pattern", metavar="GLOB", help="which files of a folder; all but labels if left out"
    )
    parser.add_argument(
        "--key", help="HDF5: dataset inside the files; DICOM: series, by its UID or description"
    )
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=number_above_zero("mm"),
        metavar=("X", "Y", "Z"),
        help="HDF5: voxel size in mm where the files do not give it; that of the training data "
        "if left out",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--engine",
        choices=["auto", "torch", "torch-bf16", "onnxruntime", "openvino", "openvino-bf16"],
        default="auto",
        help="what runs the network; auto takes, on a CPU, the fastest one whose segmentation of "
        "the first scan is that of torch, and says so",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse scans that are unlike the training data"
    )
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="segment only part I of N of the scans, such as 3/100, for an array of jobs; every scan "
        "is in one part, and tables have the rows of all parts at the end",
    )
    _add_averages(parser)
    _add_outputs(parser)
    _add_regions(parser)


def _add_averages(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments about several networks and views of a scan."""
    parser.add_argument(
        "--checkpoint",
        choices=["best", "last", "folds"],
        default="best",
        help="which one of a run; folds: of a run of several folds, the mean of all folds",
    )
    parser.add_argument(
        "--tta",
        choices=["off", "shift", "flip", "all"],
        default="off",
        help="the mean over several views of each scan: shift, at 8 places of the network's grid; "
        "flip, mirrored from left to right, too, with left and right classes exchanged; all, both",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments about what is written."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--format",
        action="extend",
        type=_list_formats,
        metavar="FORMAT",
        help="nifti, seg.nrrd (3D Slicer), dicom-seg (of DICOM series) or bids (a dataset of "
        "derivatives), also several, nifti,bids, which get a folder each; the scan's own, or NIfTI, "
        "if left out",
    )
    parser.add_argument(
        "--terminology",
        type=Path,
        metavar="FILE",
        help="dicom-seg, seg.nrrd: CSV of codes, with the columns class, code, scheme and meaning",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="write the probability of each class too, as one 4D NIfTI",
    )
    parser.add_argument(
        "--volumes",
        type=Path,
        metavar="FILE",
        help="write a row for each scan into a table: mm3 of each class, and what is unusual",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="page to write: volumes and remarks of each scan, and those to look at first",
    )
    parser.add_argument(
        "--review",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="list the N scans that a person should look at first, by the Dice that the model "
        "expects of its own segmentations, which is in quality.tsv of each scan",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="segment scans again whose segmentation exists"
    )


def _add_regions(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments about parts of a scan."""
    parser.add_argument(
        "--where",
        nargs=2,
        metavar=("TEMPLATE", "REGIONS"),
        help="of scans of the whole head, segment only the regions that are drawn on a template, "
        "which is registered to each scan: a scan such as an MNI template, and a mask or atlas on "
        "its grid",
    )
    parser.add_argument(
        "--where-values",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="which numbers of REGIONS are regions, each cut out for itself; all but 0 if left out",
    )
    parser.add_argument(
        "--where-margin",
        type=number_from_zero("mm"),
        default=8.0,
        metavar="MM",
        help="what is cut out around each region; 8 mm if left out",
    )


def _list_formats(text: str) -> list[str]:
    """The formats that a text names, separated by commas."""
    names = text.split(",")
    if unknown := [name for name in names if name not in _FORMATS]:
        known = ", ".join(_FORMATS)
        raise argparse.ArgumentTypeError(f"no format is called {unknown[0]!r}; there are {known}")
    return names


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.cli.quick_start import delay_f2py, without_collection, without_modules

    # OpenVINO's converter is not needed, nor what nibabel reads DICOM inside of NIfTI with.
    with without_modules("openvino.tools.ovc"):
        delay_f2py()
        with without_collection(), without_modules("pydicom"):
            import hsf_finetune.inference.ensemble
            import hsf_finetune.inference.segment_files  # noqa: F401
        return _segment(options)


def _check_fits_shards(options: argparse.Namespace) -> None:
    """Refuses what one part of the scans cannot give, and has all parts use the same engine.

    Raises:
        ConfigError: a page is to be written.
    """
    from hsf_finetune.system.console import say
    from hsf_finetune.system.errors import ConfigError

    if options.report:
        raise ConfigError(
            "a page shows the scans of one call, and --shard segments a part of them",
            found=f"--report {options.report} --shard {options.shard}",
            fix="--volumes FILE: the table has the rows of all parts at the end; --review N lists "
            "those of all parts to look at first",
        )
    if options.engine == "auto":
        options.engine = "torch"
        say("engine: torch, as in all parts; --engine openvino, in all of them, may be faster")


def _segment(options: argparse.Namespace) -> int:
    """The exit code, after everything is imported."""
    from hsf_finetune.cli.quick_start import (
        OF_MONAI,
        import_monai,
        without_collection,
        without_modules,
    )
    from hsf_finetune.inference.ensemble import load_models, say_method, split_models
    from hsf_finetune.inference.formats.output_formats import OutputChoice
    from hsf_finetune.inference.localisation import RegionFinder
    from hsf_finetune.inference.scan_jobs import SegmentOptions
    from hsf_finetune.inference.segment_files import segment_files
    from hsf_finetune.system.console import say
    from hsf_finetune.system.freed_memory import keep_freed_memory

    if options.shard:
        _check_fits_shards(options)
    if options.report and not options.overwrite:
        from hsf_finetune.evaluation.evaluate import check_is_free

        check_is_free(options.report)
    where = None
    if options.where:
        template, regions = options.where
        margin_mm = options.where_margin
        where = RegionFinder.read(template, regions, options.where_values, margin_mm)
    chosen = SegmentOptions(
        options.key,
        tuple(options.spacing) if options.spacing else None,
        options.pattern,
        options.overwrite,
        options.strict,
        OutputChoice(
            tuple(dict.fromkeys(options.format or ())),
            options.terminology,
            options.probabilities,
            options.volumes,
        ),
        where,
        options.review,
        options.shard,
    )
    keep_freed_memory(largest_bytes=1 << 29)  # logits of a window of many classes are as large
    weights, scans = split_models(options.model, options.scans)
    how = (options.checkpoint, options.device, options.set, say, options.engine)
    with without_collection(), without_modules(*OF_MONAI):
        import_monai()
        model = load_models(weights, *how).with_views(options.tta)
    say_method(model)
    results = segment_files(model, scans, options.output, chosen)
    if options.report:
        from hsf_finetune.report.save_report import save_predictions_report

        save_predictions_report(results, model, options.report)
    return 1 if any(result.status == "failed" for result in results) else 0
