"""DICOM SEG objects, which a PACS keeps beside the series that was segmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.volumes.dicom_series import series_files
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.formats.terminology import ClassCode, Code
from hsf_finetune.labels.label_colours import LabelRow
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import ConfigError, DataError
from hsf_finetune.system.version import __version__

_MADE_BY = "hsf_finetune"
_SERIES_NUMBER = 9000
_LONGEST = 64
"""Characters of a segment's label."""


def write_dicom_segmentation(
    path: Path,
    labels: npt.NDArray[Any],
    source: VolumeRef,
    rows: Sequence[LabelRow],
    codes: Mapping[str, ClassCode],
) -> None:
    """Writes a segmentation of a DICOM series as DICOM SEG (BINARY), complete or not at all.

    It belongs to the patient, the study and the frame of reference of the series, has a segment
    for each label, and leaves out frames without any.

    Args:
        path: to write.
        labels: unsigned integers, (X, Y, Z).
        source: the folder of the series, and its key.
        rows: of the labels.
        codes: of all classes.

    Raises:
        DataError: the series lacks what a DICOM SEG repeats of it.
        ConfigError: highdicom is not installed.
        OutputError: it cannot be written.
    """
    highdicom = import_highdicom()
    import pydicom

    images = [
        pydicom.dcmread(file, stop_before_pixels=True)
        for file in series_files(source.path, source.key)
    ]
    try:
        made = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=_number_segments(labels, rows),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _describe_segment(highdicom, number, row, codes[row.name])
                for number, row in enumerate(rows, start=1)
            ],
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=_MADE_BY,
            manufacturer_model_name=_MADE_BY,
            software_versions=__version__,
            device_serial_number="0",
            series_description="Segmentation",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "no DICOM SEG can be made for the series",
            file=source,
            found=f"{type(error).__name__}: {error}",
            expected="images with patient, study, frame of reference and position",
            fix="export the series from its archive again, or write --format nifti",
        ) from error
    with atomic_write(path) as temporary:
        made.save_as(temporary)


def _number_segments(labels: npt.NDArray[Any], rows: Sequence[LabelRow]) -> npt.NDArray[Any]:
    """Labels as numbers of segments, 1 to N: (X, Y, Z) -> (frames, rows, columns)."""
    frames = labels.transpose(2, 1, 0)
    numbers = np.zeros(frames.shape, np.uint8 if len(rows) < 256 else np.uint16)
    for number, row in enumerate(rows, start=1):
        numbers[frames == row.value] = number
    return numbers


def import_highdicom() -> ModuleType:
    """The package that writes DICOM SEG.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import highdicom
        import highdicom.seg
    except ImportError as error:
        raise ConfigError(
            "DICOM SEG needs highdicom, which is not installed",
            found=str(error),
            fix="pip install 'hsf-finetune[formats]'",
        ) from error
    module: ModuleType = highdicom
    return module


def _describe_segment(highdicom: Any, number: int, row: LabelRow, code: ClassCode) -> Any:
    def coded(term: Code) -> Any:
        return highdicom.sr.CodedConcept(*term)

    from pydicom.sr.codedict import codes

    described = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=row.name[:_LONGEST],
        segmented_property_category=coded(code.category),
        segmented_property_type=coded(code.type),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=_MADE_BY, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=highdicom.color.CIELabColor.from_rgb(*row.colour),
    )
    if code.side is not None:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(code.side)]
    return described
