"""What `predict` writes of a segmented scan, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from hsf_finetune.data.volumes.dicom_series import is_dicom_folder
from hsf_finetune.data.volumes.nibabel_formats import NIFTI, save_image
from hsf_finetune.data.volumes.read_volume import VolumeRef, holds_volume, is_hdf5, stem
from hsf_finetune.inference.formats import bids_derivatives as bids
from hsf_finetune.inference.formats.colour_tables import bids_text, freesurfer_text, itksnap_text
from hsf_finetune.inference.formats.dicom_segmentation import (
    import_highdicom,
    write_dicom_segmentation,
)
from hsf_finetune.inference.formats.slicer_file import SLICER, write_slicer_file
from hsf_finetune.inference.formats.terminology import find_codes, require_codes
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.inference.write_segmentation import nifti_like
from hsf_finetune.labels.label_colours import LabelRow
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import DataError

_AS_SCAN = ""
"""The scan's own format where that is NIfTI or HDF5; NIfTI for others."""
_PROBABILITIES = "probabilities"
PROBABILITY_ENDS = ("_probabilities.nii.gz", "_probseg.nii.gz")
"""Of the names of files of probabilities, which lie beside the segmentations."""
_TABLES = {"labels_itksnap.txt": itksnap_text, "labels_freesurfer.txt": freesurfer_text}
LABEL_TABLES = (*_TABLES, bids.TABLE)
"""Names of the tables beside segmentations that say what their values mean."""
_STEPS = 65535
"""Probabilities are stored in so many steps: NIfTI has no 16-bit floats."""


@dataclass(frozen=True)
class OutputChoice:
    """What is written of each scan.

    Args:
        formats: some of nifti, seg.nrrd, dicom-seg and bids; none is the scan's own, or NIfTI.
        terminology: file with the codes of classes.
        probabilities: write them too.
        volumes: table of volumes to write a row into.
    """

    formats: tuple[str, ...] = ()
    terminology: Path | None = None
    probabilities: bool = False
    volumes: Path | None = None


ONLY_LABELS = OutputChoice()


@dataclass(frozen=True)
class ScanOutput:
    """A file to write of a scan.

    Args:
        format: of the file.
        folder: of all files of this format, which gets tables of names and colours.
        path: of the file.
    """

    format: str
    folder: Path
    path: Path

    @property
    def holds_labels(self) -> bool:
        """Whether it is a NIfTI file of the labels."""
        return self.format != _PROBABILITIES and self.path.name.lower().endswith(NIFTI)


def output_files(
    ref: VolumeRef, place: Path, output: Path, choice: OutputChoice
) -> tuple[ScanOutput, ...]:
    """The files to write of a scan.

    Several formats get a folder each.

    Args:
        ref: the scan's first channel.
        place: its path below the output folder, with the name of its file.
        output: folder to write into.
        choice: of the formats.

    Raises:
        DataError: the scan cannot be written in one of the formats.
    """
    name = stem(ref.path)
    formats = choice.formats or (_AS_SCAN,)
    files = []
    for one in formats:
        folder = output / one if len(formats) > 1 else output
        own = place.name if place.name.lower().endswith(NIFTI) else f"{name}.nii.gz"
        match one:
            case "bids":
                path = _bids_name(ref).segmentation()
            case "seg.nrrd":
                path = place.with_name(f"{name}{SLICER}")
            case "dicom-seg":
                _check_is_series(ref)
                path = place.with_name(f"{name}.seg.dcm")
            case "nifti":
                path = place.with_name(own)
            case _:
                # What cannot be read keeps its name too, and is reported under it.
                path = (
                    place.with_name(own) if holds_volume(ref.path) and not is_hdf5(place) else place
                )
        files.append(ScanOutput(one, folder, folder / path))
    if choice.probabilities:
        first = files[0]
        other = f"{name}{PROBABILITY_ENDS[0]}"
        if first.format == "bids":
            other = _bids_name(ref).segmentation("probseg").name
        files.append(ScanOutput(_PROBABILITIES, first.folder, first.path.with_name(other)))
    return tuple(files)


def check_outputs(
    files: Sequence[ScanOutput], card: ModelCard, choice: OutputChoice, overwrite: bool
) -> None:
    """Refuses, before anything is computed, what cannot be written in the formats.

    Args:
        files: of all scans.
        card: of the model.
        choice: of the formats.
        overwrite: replace tables of other labels.

    Raises:
        ConfigError: a class has no code, or a package is missing.
        OutputError: the folder holds segmentations with other labels.
    """
    rows = card.label_rows
    names = [row.name for row in rows]
    if "dicom-seg" in choice.formats:
        import_highdicom()
        require_codes(names, choice.terminology)
    find_codes(names, choice.terminology)
    for folder in {one.folder for one in files if one.format == "bids"}:
        bids.check_dataset(folder, rows, overwrite)
    for folder in {one.folder for one in files if _gets_tables(one)}:
        for name, text_of in _TABLES.items():
            bids.check_same_text(folder / name, text_of(rows), overwrite)


def write_outputs(found: Segmentation, files: Sequence[ScanOutput], choice: OutputChoice) -> None:
    """Writes a segmentation in every format, each file complete or not at all.

    Args:
        found: the segmentation.
        files: to write.
        choice: of the formats.

    Raises:
        OutputError: a file cannot be written.
        DataError: a format cannot hold the segmentation.
    """
    rows = found.card.label_rows
    for one in files:
        folder, path = one.folder, one.path
        match one.format:
            case "bids":
                _write_text(folder / bids.TABLE, bids_text(rows))
                source = bids.describe_dataset(folder, found.scan.ref.path)
                bids.write_sidecar(path, source, {"Manual": False})
                found.save(path, overwrite=True)
            case "dicom-seg":
                codes = require_codes([row.name for row in rows], choice.terminology)
                write_dicom_segmentation(path, found.labels, found.scan.ref, rows, codes)
            case "seg.nrrd":
                codes = find_codes([row.name for row in rows], choice.terminology)
                write_slicer_file(path, found.labels, found.affine, rows, codes)
            case "probabilities":
                _write_probabilities(path, found, rows)
                if path.name.endswith(PROBABILITY_ENDS[1]):
                    source = bids.describe_dataset(folder, found.scan.ref.path)
                    bids.write_sidecar(path, source, {"LabelMap": list(found.classes)})
            case _:
                found.save(path, overwrite=True)
                if _gets_tables(one):
                    for name, text_of in _TABLES.items():
                        _write_text(folder / name, text_of(rows))


# -------------------------------------------------------------------- internals
def _gets_tables(file: ScanOutput) -> bool:
    is_plain = file.format in ("nifti", _AS_SCAN)
    return is_plain and file.path.name.lower().endswith(NIFTI)


def _bids_name(ref: VolumeRef) -> bids.BidsName:
    name = bids.BidsName.read(ref.path)
    if name is None:
        raise DataError(
            "the scan has no name of BIDS, from which its segmentation's could be made",
            file=ref.path,
            expected="a name such as sub-01_T2w.nii.gz or sub-01_ses-2_run-1_T2w.nii.gz",
            fix="give it one, or link to it under one (ln -s scan.nii.gz sub-01_T2w.nii.gz); or "
            "write --format nifti",
        )
    return name


def _check_is_series(ref: VolumeRef) -> None:
    if not is_dicom_folder(ref.path):
        raise DataError(
            "a DICOM SEG belongs to a DICOM series, and the scan is none",
            file=ref.path,
            expected="the folder of the series",
            fix="give that folder in place of the converted file, or write --format nifti or "
            "seg.nrrd",
        )


def _write_text(file: Path, text: str) -> None:
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        with atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _write_probabilities(path: Path, found: Segmentation, rows: Sequence[LabelRow]) -> None:
    """One 4D NIfTI, (X, Y, Z, classes), of 16 bits per value; a comment names the classes."""
    shape = (*found.labels.shape, len(found.classes))
    steps = np.empty(shape, np.uint16)
    for number, one in enumerate(found.probabilities):
        steps[..., number] = np.rint(one * _STEPS)
    image = nifti_like(steps, found.scan)
    image.header.set_slope_inter(1 / _STEPS, 0)
    names = "; ".join(f"{number} {name}" for number, name in enumerate(found.classes))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", names.encode()))
    with atomic_write(path) as temporary:
        save_image(image, temporary)
