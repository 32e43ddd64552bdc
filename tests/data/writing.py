"""Small volumes on disk, and the descriptions of datasets made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace, LabelMap

SHAPE = (10, 9, 8)
AFFINE = np.array([[0.8, 0, 0, -4], [0, 0.9, 0, 5], [0, 0, 1.1, 6], [0, 0, 0, 1]], dtype=float)
NAMES = {1: "DG", 2: "CA1"}
SPACE = ClassSpace((BACKGROUND, "DG", "CA1"))
PROTOCOL = LabelMap.from_sets(SPACE, {1: ["DG"], 2: ["CA1"]})


def scan(seed: int = 0, shape: Sequence[int] = SHAPE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def blobs(shape: Sequence[int] = SHAPE) -> np.ndarray[Any, Any]:
    """Two boxes of values 1 and 2, far from the borders."""
    label = np.zeros(shape, dtype=np.uint8)
    x, y, z = (n // 2 for n in shape)
    label[x - 2 : x, y - 2 : y + 2, z - 2 : z + 2] = 1
    label[x : x + 2, y - 2 : y + 2, z - 2 : z + 2] = 2
    return label


def nifti(path: Path, array: Any = None, affine: Any = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(scan() if array is None else array, affine), path)
    return path


def hdf5(
    path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
            file[key].attrs.update(attributes or {})
    return path


def pair(folder: Path, image: str, label: str) -> None:
    """An image and its label as NIfTI files, other ones for each name of an image."""
    seed = crc32(image.encode())
    nifti(folder / image, scan(seed))
    shift = (seed % 7 - 3, seed // 7 % 6 - 2, seed // 42 % 5 - 2)
    nifti(folder / label, np.roll(blobs(), shift, axis=(0, 1, 2)))


def settings(
    main: Path, patterns: Mapping[str, Mapping[str, Any]], **more: Any
) -> DatasetsSettings:
    """One dataset `lab` in `main` itself; `more` belongs to the dataset."""
    return several(main, lab={"path": ".", "patterns": patterns, **more})


def several(main: Path, **datasets: Mapping[str, Any]) -> DatasetsSettings:
    described = {name: {"labels_names": NAMES, **given} for name, given in datasets.items()}
    return DatasetsSettings.model_validate({"main_path": str(main), "datasets": described})


def minimal_settings(**given: Any) -> DatasetsSettings:
    """The `datasets` group with one dataset, whose files are never looked for."""
    lab = {"path": ".", "patterns": {"t2": {"mri": "*"}}, "labels_names": NAMES}
    return DatasetsSettings.model_validate({"datasets": {"lab": lab}, **given})


def case(folder: Path, name: str, seed: int = 0, shape: Sequence[int] = SHAPE) -> Case:
    """A case on disk: a random image and two boxes."""
    image = nifti(folder / f"{name}.nii.gz", scan(seed, shape))
    label = nifti(folder / f"{name}_seg.nii.gz", blobs(shape))
    return Case(name, name, "lab", (VolumeRef(image),), VolumeRef(label), PROTOCOL)


def itk(path: Path, array: Any, affine: Any = AFFINE, compressed: bool = True) -> Path:
    """A NRRD or MetaImage file."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


def dicom(folder: Path, array: Any, affine: Any = AFFINE, description: str = "T2 cor") -> Path:
    """A folder with a DICOM series, its files in the reverse order of their places.

    `array` holds 16-bit integers; the axes are right-handed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = (lps[:3, :3] / spacing).T
    series, study, frame = (generate_uid() for _ in range(3))
    for number in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        empty = "PatientBirthDate PatientSex AccessionNumber ReferringPhysicianName"
        for name in (*empty.split(), "PositionReferenceIndicator"):
            setattr(made, name, "")
        made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        made.SeriesInstanceUID, made.StudyInstanceUID = series, study
        made.FrameOfReferenceUID, made.Modality = frame, "MR"
        made.SeriesDescription, made.Manufacturer = description, "nobody"
        made.PatientID, made.PatientName = "1", "A^B"
        made.StudyID, made.StudyDate, made.StudyTime = "1", "20200101", "120000"
        made.SeriesNumber, made.InstanceNumber = 1, number + 1
        made.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        made.Columns, made.Rows = array.shape[:2]
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation = 15, 1
        place = lps @ [0, 0, number, 1]
        made.ImagePositionPatient = [_decimal(x) for x in place[:3]]
        made.ImageOrientationPatient = [_decimal(x) for x in directions[:2].ravel()]
        made.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        made.SliceThickness = _decimal(spacing[2])
        made.PixelData = np.ascontiguousarray(array[:, :, number].T.astype("<i2")).tobytes()
        name = f"{description}_{array.shape[2] - number:03d}.dcm".replace(" ", "")
        made.save_as(folder / name, enforce_file_format=True)
    return folder


def _decimal(number: float) -> str:
    """A number as DICOM holds it: up to 16 characters."""
    return f"{number:.9f}"[:16]
